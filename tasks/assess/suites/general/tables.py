"""What the questions of the general suite are made from: common knowledge and plain words, in tables.

Entries are parted by `;`, question and answer by `:`. Read by `make.py` alone.
"""

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
