"""Returns: what customers write about giving back and exchanging. Patterns as in `grammar.py`."""

from __future__ import annotations

from tasks.curate.helpdesk.situation import situation

RETURNS = (
    situation(
        "exchange",
        "Wrong item in the box / Not what I ordered / Got a {other_noun} / Mix-up in the parcel",
        """
- Instead of the {product} I [found|got] a {other} in the box, [so|and] I [want|would like] to [swap it|exchange it].
- [You packed|Someone packed] a {other} [for me|into my parcel], [but|yet] I [ordered|paid for] a {product}.
  [How|Where] do I [send it back|exchange it]?
- I [opened|unpacked] the parcel and it is a {other}. [I ordered|What I ordered was] a {product}; [please take this
  one back|this one has to go back].
""",
    ),
    situation(
        "exchange",
        "Wrong colour / {colour} instead of {colour2} / Swap for another colour / Exchange please",
        """
- The {product} is {colour}, but I [chose|wanted] {colour2}. [Can I|How do I] exchange it?
- [In daylight|On the wall] {colour} [looks wrong|does not suit us], so I [would like|want] to swap the {product} for
  [one in {colour2}|a {colour2} one].
- [My {product} came|You sent the {product}] in {colour}. I [asked for|need] {colour2}, [can we swap|may I change it].
""",
        state="have",
    ),
    situation(
        "label",
        "Does not suit our {room} / Changed my mind / Giving it back / Not for us after all",
        """
- The {product} [does not suit|looks wrong in] our {room}. It is [unused|unopened]; how can I [give it back|hand it
  back]?
- [On second thoughts|After a night's sleep] we [do not need|will not use] the {product} [after all|]. It is [still
  sealed| untouched] and [should|can] go back to you.
- I [bought|chose] the {product} [too quickly|without measuring], it is [too big|too large] for the {room}. [What must
  I do|What are the steps] to send it back?
""",
        state="have",
    ),
    situation(
        "label",
        "No label in the box / Label for sending back / Sticker missing / How to ship it back",
        """
- There was no [label|sticker] in the box [for sending the {product} back|to ship the {product} back].
- [I want|I would like] to post the {product} back to you, [but|only] the [label|code] [in the app|you mailed] [cannot
  be printed|has expired].
- [The parcel shop|The post office] [will not take|refuses] my box with the {product} because your [label|barcode] [is
  smudged|cannot be scanned].
""",
    ),
    situation(
        "label",
        "Until when can it go back? / Deadline for giving back / Thirty days? / Still in time?",
        """
- [For how long|Until when] can I give back the {product}? I [bought|got] it {days} days ago.
- Do the thirty days [for giving back the {product}|to hand back the {product}] [count|start] from the order or from
  the day it [came|arrived]?
- I was [ill|away] for {days} days and [could not|did not] unpack the {product}. [Am I|Would I be] too late to
  [give|hand] it back?
""",
        state="have",
    ),
    situation(
        "exchange",
        "Broken on arrival / {part} cracked / Damaged in the box / Need another one",
        """
- When I [opened|unpacked] the box, the {part} of the {product} was [cracked|broken]. I [would like|want] [another
  one|a new one] and [will send|can send] this one back.
- The {product} came out of the box with a [scratched|bent] {part}. [Please exchange it|Can it be exchanged], [I will
  not keep|I do not want to keep] it like this.
- [Straight out of the box|On unpacking it] the {part} of the {product} [was in two pieces|fell apart]. [Where do I
  send it|What do I do with it], and [do I get|will there be] a new one?
""",
    ),
    situation(
        "label",
        "Too heavy to carry / Collection from home / Can you fetch it? / No car",
        """
- The {product} is too heavy [to carry|for me]. [Can someone|Could a driver] collect it [from my home|here],
  [as|since] I am giving it back?
- I [have no car|cannot drive], so [could|can] the {product} [I do not want|which goes back to you] be [fetched|picked
  up] [at my door|here]?
- [Your driver|The man] who was to [fetch|collect] the {product} I am [giving|handing] back [did not come|never came]
  on {weekday}.
""",
        products=("Tarn Battery", "Heron Charger"),
        state="have",
    ),
    situation(
        "exchange",
        "A gift I cannot use / Swap a present / No receipt / Doubled gift",
        """
- My [sister|uncle|neighbour] gave me a {product}, but I already [have|own] one. Can I swap it [without a receipt|for
  a {other}]?
- The {product} was a [birthday|wedding] present and we now have two. [Would you|Will you] take one back [without the
  paper|from us]?
- I [was given|got] a {product} as a [gift|present] and [would rather have|would prefer] a {other}. [Do you
  exchange|Can you exchange] gifts?
""",
        state="have",
    ),
    situation(
        "label",
        "Has it reached you? / Sent back last week / Waiting for confirmation / Did my box arrive?",
        """
- I [posted|handed in] the {product} [with your label|in its box] {days} days ago. Has it [reached|arrived at] your
  warehouse?
- [You have had|The carrier says you have had] my {product} back since {weekday}, [but|yet] I [got|have] no
  [confirmation| note] [of it|from you].
- The {product} I [gave|sent] back is [signed for|delivered at your end], [says the tracking|according to the
  carrier], but [your app|the app] still says [waiting for the item|open].
""",
    ),
    situation(
        "label",
        "Keep one, send one back / Two {nouns} bought / Only part goes back / One too many",
        """
- Of the two {products} I [bought|ordered] I [need|will keep] only one. How do I send [the other|the second] back?
- I [took|bought] two {products} [to compare|to be safe], and one [is too many|is left over]. [Can it|May it] go back
  [on its own|alone]?
- [Please take back|I want to give back] one of my two {products}; the other [stays|is in use] [in the {room}|here].
""",
        state="have",
    ),
    situation(
        "label",
        "Opened, still possible? / Tried it once / Box is torn / Used for one evening",
        """
- I have [unpacked|opened] and tried the {product} [once|for one evening]. Do you [still|] take it back?
- The [box|packaging] of the {product} is [torn|gone]. [Can I|May I] hand it back [all the same|like that]?
- [My|Our] {product} [has been|was] in use for [a day|one evening], [without a mark|and has no mark]. Is it too used
  to [go back|give back]?
""",
        state="have",
    ),
    situation(
        "exchange",
        "Swap for the larger model / Wrong model chosen / Other model instead / Exchange models",
        """
- I would [rather have|prefer] the [larger|smaller] model. [Can I|May I] swap my {product} [for it|for one] and pay
  the difference?
- [We|I] chose the wrong model: [this {product}|the {product}] is [too small|too weak] for our house. [Please exchange
  it|I want to exchange it] for a larger one.
- [Our electrician|A friend] [says|thinks] the other model [suits|fits] our {room} better. Can I exchange the
  {product}? It is [like new|unused].
""",
        state="have",
    ),
)
