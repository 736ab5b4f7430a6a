"""Writes `items.jsonl` anew: general questions with answers that a pattern can check, from tables and a fixed seed.

Run by a person who changes the suite (`python -m tasks.assess.suites.general.make`), never by a pipeline. Whole
families of questions were left out where the small embedded base model is right hardly ever; single items never were:
a suite of what one base happens to get right would call every other model worse.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import orjson

from tasks.files import write_atomic

Item = tuple[str, str, str]
"""Question, wanted answer, pattern that a right answer holds (ignoring case)."""
FAMILIES = {
    "facts": ("body", "capital", "common", "continent", "country", "language", "opposite"),
    "arithmetic": ("add", "after", "double", "subtract"),
    "instruction": ("choose", "finish", "repeat", "say", "yes_no"),
    "format": ("brackets", "json", "list", "past", "plural", "quotes"),
}
"""Kind of skill -> its families of questions."""
CAPITALS = (
    "France:Paris;Germany:Berlin;Italy:Rome;Spain:Madrid;Japan:Tokyo;China:Beijing;Russia:Moscow;Egypt:Cairo;"
    "Greece:Athens;Portugal:Lisbon;Austria:Vienna;Poland:Warsaw;Hungary:Budapest;Sweden:Stockholm;Norway:Oslo;"
    "Denmark:Copenhagen;Finland:Helsinki;Ireland:Dublin;England:London;Scotland:Edinburgh;Belgium:Brussels;"
    "the Netherlands:Amsterdam;Canada:Ottawa;Mexico:Mexico City;Cuba:Havana;Argentina:Buenos Aires;Chile:Santiago;"
    "Peru:Lima;Colombia:Bogota;Kenya:Nairobi;Iraq:Baghdad;Iran:Tehran;Thailand:Bangkok;South Korea:Seoul;"
    "Australia:Canberra;the United States:Washington"
)
OPPOSITES = (
    "hot:cold;big:small;up:down;left:right;day:night;black:white;good:bad;happy:sad;fast:slow;rich:poor;old:young;"
    "early:late;open:closed;full:empty;hard:soft;heavy:light;high:low;in:out;long:short;love:hate;near:far;new:old;"
    "on:off;right:wrong;strong:weak;tall:short;true:false;wet:dry;wide:narrow;war:peace"
)
CONTINENTS = (
    "Nigeria:Africa;Kenya:Africa;Morocco:Africa;Ghana:Africa;Germany:Europe;Italy:Europe;Spain:Europe;Poland:Europe;"
    "Sweden:Europe;Greece:Europe;India:Asia;Japan:Asia;Vietnam:Asia;Mongolia:Asia;Nepal:Asia;Brazil:South America;"
    "Argentina:South America;Peru:South America;Chile:South America;Canada:North America;Mexico:North America"
)
LANGUAGES = (
    "France:French;Germany:German;Italy:Italian;Spain:Spanish;Japan:Japanese;Russia:Russian;Portugal:Portuguese;"
    "Greece:Greek;Poland:Polish;Sweden:Swedish;Norway:Norwegian;Denmark:Danish;Hungary:Hungarian;Turkey:Turkish;"
    "Mexico:Spanish;Argentina:Spanish;England:English;Vietnam:Vietnamese;Iran:Persian;Austria:German"
)
SENTENCES = (
    "The cat sleeps.;The door is open.;We went home.;It is raining.;My tea is cold.;The bus is late.;Birds can sing.;"
    "The sky is blue.;She reads a book.;He likes music.;The soup is hot.;They play chess.;"
    "I can swim.;The shop is closed.;"
    "The lamp is on.;We live here.;The road is long.;Snow is white.;The dog barks.;Time flies.;The test is easy.;"
    "The milk is fresh.;The train has left.;Her coat is red.;His hat is new."
)
PASTS = (
    "go:went;eat:ate;see:saw;run:ran;write:wrote;take:took;give:gave;come:came;sing:sang;drink:drank;swim:swam;"
    "speak:spoke;break:broke;buy:bought;think:thought;teach:taught;bring:brought;find:found;make:made;walk:walked;"
    "play:played;jump:jumped;open:opened;work:worked;call:called"
)
SENSES = (
    "see:eye;hear:ear;smell:nose;taste:tongue;walk:(?:leg|foot|feet);write:hand;chew:(?:teeth|tooth|jaw);think:brain"
)
COMMON = (
    "How many days are in a week:7|seven;How many months are in a year:12|twelve;"
    "How many legs does a spider have:8|eight;"
    "How many legs does a dog have:4|four;How many sides does a triangle have:3|three;How many hours are in a day:24;"
    "How many minutes are in an hour:60|sixty;What is frozen water called:ice;What do bees make:honey;"
    "What do cows give us to drink:milk;What is the largest ocean on Earth:pacific;Which planet do we live on:earth;"
    "What is the chemical symbol of water:H2O|H₂O;Who wrote Romeo and Juliet:(?:william )?shakespeare;"
    "Which star is closest to the Earth:(?:the )?sun;What gas do humans need to breathe:oxygen;"
    "What is the tallest mountain in the world:(?:mount )?everest;Which language is spoken in Brazil:portuguese;"
    "On which continent is Egypt:africa;On which continent is China:asia;On which continent is France:europe;"
    "Which animal is known as the king of the jungle:(?:the )?lion;"
    "What is the largest animal in the world:(?:the )?blue whale;"
    "What is the largest planet in our solar system:jupiter;Which planet is known as the Red Planet:mars;"
    "In which country is the Eiffel Tower:france;In which country are the pyramids of Giza:egypt;"
    "Which metal has the symbol Fe:iron;Who painted the Mona Lisa:(?:leonardo )?da vinci|leonardo;"
    "Who was the first president of the United States:(?:george )?washington;"
    "What is the currency of Japan:yen|japanese yen;"
    "What is the longest river in Africa:(?:the )?nile;In which season does snow usually fall:winter;"
    "Which organ pumps blood through the body:(?:the )?heart;At how many degrees Celsius does water boil:100;"
    "What do we call a person who teaches in a school:(?:a )?teacher;"
    "What do we call a person who flies a plane:(?:a )?pilot;"
    "Where do fish live:water|ocean|sea;What do plants need from the sun:(?:sun)?light|energy;"
    "What is the first letter of the alphabet:A\\b"
)
KINDS = {
    "dog cat horse cow lion tiger rabbit": ("an animal", "a plant"),
    "rose tulip oak fern daisy": ("a plant", "an animal"),
    "hammer saw drill wrench screwdriver": ("a tool", "a fruit"),
    "banana pear cherry mango peach": ("a fruit", "a tool"),
    "chair table sofa desk": ("furniture", "food"),
}
YES_NO = (
    "Is the sun hot:yes;Is ice cold:yes;Can fish fly to the moon:no;Can birds fly:yes;Is water wet:yes;"
    "Is Paris in France:yes;Is Paris in Japan:no;Do dogs have four legs:yes;Do cats have ten legs:no;Is fire cold:no;"
    "Is a mouse bigger than an elephant:no;Is an elephant bigger than a mouse:yes;Is 10 greater than 2:yes;"
    "Is 2 greater than 10:no;Does a week have seven days:yes;Does a year have three months:no;Is snow white:yes;"
    "Is coal white:no;Do plants need water:yes;Can a stone talk:no;Is the Earth round:yes;Is the Earth flat:no;"
    "Is gold a metal:yes;Is a carrot an animal:no;Do humans need air to live:yes;Is London in England:yes;"
    "Is a car alive:no;Is sugar sweet:yes;Is a lemon sour:yes;Does the sun rise in the west:no"
)
SAYINGS = (
    "An apple a day keeps the doctor:away;Better late than:never;Practice makes:perfect;Time is:money;"
    "Honesty is the best:policy;Actions speak louder than:words;The early bird catches the:worm;"
    "Two wrongs don't make a:right;Birds of a feather flock:together;"
    "A picture is worth a thousand:words;Beauty is in the eye of the:beholder;All that glitters is not:gold;"
    "Don't judge a book by its:cover;Where there is smoke, there is:fire;Rome was not built in a:day;"
    "The pen is mightier than the:sword;No news is good:news;Laughter is the best:medicine;Home sweet:home"
)
PLURALS = (
    "cat:cats;dog:dogs;book:books;car:cars;house:houses;box:boxes;bus:buses;dish:dishes;child:children;man:men;"
    "woman:women;foot:feet;tooth:teeth;mouse:mice;goose:geese;city:cities;baby:babies;lady:ladies;leaf:leaves;"
    "knife:knives;wife:wives;wolf:wolves;tree:trees;apple:apples;chair:chairs"
)
WORDS = (
    "apple river mountain garden window yellow basket candle pencil orange bridge forest silver pocket market summer "
    "winter bottle kitchen paper castle dragon island planet rocket guitar violin engine wheel ladder table chair lamp "
    "mirror carpet curtain pillow blanket bucket hammer ocean desert valley meadow canyon harbor village tower temple "
    "palace button ribbon jacket helmet sandal mitten wallet camera letter stamp coffee butter cheese pepper ginger "
    "cookie muffin tomato potato carrot rabbit turtle falcon spider monkey donkey pigeon salmon beaver badger "
    "thunder shadow copper marble velvet cotton leather diamond emerald ruby spring autumn morning evening midnight "
    "ticket signal anchor compass lantern feather pebble acorn blossom cactus walnut pumpkin"
)


def make_items(seed: int = 20260601) -> list[dict[str, str]]:
    """Every item: item_id (`facts-capital-03`), kind, question, answer, pattern; in the order of ids."""
    items = []
    for kind, families in FAMILIES.items():
        for family in families:
            chance = random.Random(f"{seed}:{family}")  # noqa: S311
            made = list(globals()[f"_{family}"](chance))
            for number, (question, answer, pattern) in enumerate(made):
                re.compile(pattern)
                items.append(
                    {
                        "item_id": f"{kind}-{family}-{number:02}",
                        "kind": kind,
                        "question": question,
                        "answer": answer,
                        "pattern": pattern,
                    }
                )
    return sorted(items, key=lambda item: item["item_id"])


def main() -> None:
    """Write the file beside this one."""
    lines = [orjson.dumps(item).decode() for item in make_items()]
    write_atomic(Path(__file__).with_name("items.jsonl"), ("\n".join(lines) + "\n").encode())


def _word(text: str) -> str:
    return rf"\b{re.escape(text)}\b"


def _number(value: int) -> str:
    return rf"(?<![\d.]){value}(?![\d]|\.\d)"


def _pairs(table: str) -> list[tuple[str, str]]:
    return [(left.strip(), right.strip()) for left, _, right in (each.partition(":") for each in table.split(";"))]


def _capital(_chance: random.Random) -> Iterator[Item]:
    for country, city in _pairs(CAPITALS):
        yield f"What is the capital of {country}?", city, _word(city)


def _opposite(_chance: random.Random) -> Iterator[Item]:
    for word, other in _pairs(OPPOSITES):
        yield f'What is the opposite of "{word}"? Answer with one word.', other, _word(other)


def _continent(_chance: random.Random) -> Iterator[Item]:
    for country, continent in _pairs(CONTINENTS):
        yield f"On which continent is {country}?", continent, _word(continent)


def _country(_chance: random.Random) -> Iterator[Item]:
    for country, city in _pairs(CAPITALS)[:24]:
        yield f"In which country is the city of {city}?", country, _word(country.removeprefix("the "))


def _language(_chance: random.Random) -> Iterator[Item]:
    for country, language in _pairs(LANGUAGES):
        yield f"Which language do people speak in {country}?", language, _word(language)


def _body(_chance: random.Random) -> Iterator[Item]:
    for act, part in _pairs(SENSES):
        yield f"Which part of the body do we use to {act}?", part, rf"\b{part}"


def _common(_chance: random.Random) -> Iterator[Item]:
    for question, answer in _pairs(COMMON):
        yield f"{question}?", re.sub(r"\(\?:[^)]*\)\??|\\b", "", answer).split("|")[0], rf"\b(?:{answer})"


def _add(chance: random.Random) -> Iterator[Item]:
    pairs = [(a, b) for a in range(1, 10) for b in range(1, 10)]
    for a, b in chance.sample(pairs, 30):
        yield f"What is {a} + {b}?", str(a + b), _number(a + b)


def _subtract(chance: random.Random) -> Iterator[Item]:
    pairs = [(a, b) for a in range(2, 13) for b in range(1, a)]
    for a, b in chance.sample(pairs, 25):
        yield f"What is {a} - {b}?", str(a - b), _number(a - b)


def _after(chance: random.Random) -> Iterator[Item]:
    for number in chance.sample(range(1, 60), 25):
        yield f"Which number comes right after {number}?", str(number + 1), _number(number + 1)


def _double(chance: random.Random) -> Iterator[Item]:
    for number in chance.sample(range(1, 21), 15):
        yield f"What is {number} times 2?", str(2 * number), _number(2 * number)


def _repeat(_chance: random.Random) -> Iterator[Item]:
    for word in WORDS.split()[:40]:
        yield f'Repeat this word exactly: "{word}"', word, _word(word)


def _choose(chance: random.Random) -> Iterator[Item]:
    for thing, (kind, other) in KINDS.items():
        for name in thing.split():
            first, second = chance.sample([kind, other], 2)
            yield f"Is a {name} {first} or {second}? Answer with one word.", kind, rf"{_word(kind.split()[-1])}"


def _say(_chance: random.Random) -> Iterator[Item]:
    for sentence in SENTENCES.split(";"):
        yield f"Repeat this sentence: {sentence}", sentence, _word(sentence.rstrip("."))


def _yes_no(_chance: random.Random) -> Iterator[Item]:
    for statement, answer in _pairs(YES_NO):
        yield f"{statement}? Answer yes or no.", answer, rf"^\W*{answer}\b"


def _finish(_chance: random.Random) -> Iterator[Item]:
    for start, end in _pairs(SAYINGS):
        yield f'Finish the saying: "{start} ..."', end, _word(end)


def _brackets(_chance: random.Random) -> Iterator[Item]:
    for word in WORDS.split()[82:]:
        yield f"Write the word {word} in square brackets, like this: [{word}]", f"[{word}]", rf"\[\s*{word}\s*\]"


def _json(chance: random.Random) -> Iterator[Item]:
    for word in WORDS.split()[20:45]:
        number = chance.randint(1, 99)
        wanted = f'{{"{word}": {number}}}'
        yield f"Repeat this JSON and nothing else: {wanted}", wanted, rf'\{{\s*"{word}"\s*:\s*"?{number}\b'


def _list(chance: random.Random) -> Iterator[Item]:
    words = WORDS.split()
    for _ in range(25):
        three = chance.sample(words, 3)
        told = ", ".join(three)
        yield f"Repeat this list: {told}", told, r"\W+(?:\d\W+|and\s+)?".join(three)


def _quotes(_chance: random.Random) -> Iterator[Item]:
    for word in WORDS.split()[:25]:
        yield f"Write the word {word} in quotation marks.", f'"{word}"', rf'["“]{word}["”.,]'


def _past(_chance: random.Random) -> Iterator[Item]:
    for now, past in _pairs(PASTS):
        yield f'What is the past tense of the verb "{now}"?', past, rf"\b(?:{past})\b"


def _plural(_chance: random.Random) -> Iterator[Item]:
    for one, many in _pairs(PLURALS):
        yield f'What is the plural of "{one}"?', many, _word(many)


if __name__ == "__main__":
    main()
