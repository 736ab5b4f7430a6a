"""Feedback: praise, ideas and complaints that ask for no repair. Patterns as in `grammar.py`."""

from __future__ import annotations

from tasks.curate.helpdesk.situation import situation

FEEDBACK = (
    situation(
        "praise",
        "Praise for your team / Well done / Kind help on the phone / A word of thanks",
        """
- [Your colleague|The woman] on the [hotline|phone] [stayed|was] so [patient|kind] when I could not [sign in|pair the
  {product}] that I [want to say so|must write this].
- [Within|In] an hour you [replaced|sorted out] my {product}, [I never saw|I have never seen] such good service.
- The man who [brought|carried up] the {product} [took|even took] [his shoes off|the box away]. [Please tell him|He
  deserves a medal].
""",
        state="have",
        happy=True,
    ),
    situation(
        "praise",
        "We love the {noun} / Best purchase this year / Very happy / It made our {room}",
        """
- [We|My family and I] [love|enjoy] the {product}: [the {room}|our home] has never been so [cosy|pleasant].
- [I was|I had been] in doubt about paying {amount} euros, [now|but] the {product} is [the best thing|my favourite
  thing] in the {room}.
- My {relative} of [eighty|ninety] [uses|handles] the {product} [alone|without help]. [Whoever designed it|Your
  designers] [did well|can be proud].
""",
        products=("Fjord Lamp", "Skerry Thermostat"),
        state="have",
        happy=True,
    ),
    situation(
        "praise",
        "Great installer / Clean work / Praise for the fitter / Would book again",
        """
- [Your fitter|The installer] [was|came] on time, [swept|cleaned] the {room} [afterwards|] and [explained|showed] the
  {product} [twice|to all of us].
- [I want|I would like] to [praise|thank] the two [people|fitters] who [put up|installed] our {product} [on
  {weekday}|in the heat].
- [The electrician|The fitter] you [sent|chose] found a fault in our old wiring [while|when] fitting the {product}.
  [Such care is rare|That was good work].
""",
        products=("Skerry Thermostat", "Tarn Battery", "Heron Charger"),
        state="have",
        happy=True,
    ),
    situation(
        "idea",
        "Idea for the app / A wish / Could the app do this? / Suggestion from a user",
        """
- It would be [nice|good] if the app [could|would] [show|compare] the numbers of the {product} [by month|over the
  year], as a [diary|bank statement] does.
- [An idea|A wish] for the app: [one button|a widget] that [switches|sends] everything to [holiday|night] mode,
  {product} included.
- [Have you thought|Have you ever thought] of a dark [mode|view] for the app? At night [the white page|it] [blinds
  me|wakes my wife].
""",
    ),
    situation(
        "idea",
        "Idea for the {noun} / Next model / What I would improve / A wish for the {noun}",
        """
- For the next {product} I would [wish for|suggest] a [longer cable|larger {part}]; [otherwise|apart from that] it is
  [very good|well made].
- [If|Should] you ever [redesign|rework] the {product}, [please|do] [place|put] the [switch|button] [at the
  front|where one can reach it].
- A {product} in [{colour}|{colour2}] [would sell|is what many want], [at least|so say] [in our street|my friends].
""",
        state="have",
    ),
    situation(
        "idea",
        "Too much plastic / Box in a box / Packaging / So much rubbish",
        """
- Why [is there|do you need] so much plastic around [one|a single] {product}? A [modern|green] company should [do
  better|use paper].
- The {product} came in [three|four] boxes [inside each other|one in another], [half|most] of it [air|foam]. [Think
  about it|Please rethink that].
- [I filled|We filled] a whole bin with the packaging of one {product}. [Paper|Cardboard] would [do|protect it as
  well].
""",
        state="have",
    ),
    situation(
        "idea",
        "Music on the hotline / Waiting loop / Forty minutes on hold / The robot on the phone",
        """
- [Forty|Thirty] minutes of [the same tune|flute music] on your hotline are [no pleasure|hard to bear], [please change
  it| think of your callers].
- Your [phone robot|voice menu] asked me [five|six] questions and then [hung up|began again]. [People|A person] would
  be [nicer|better].
- [Nobody|No one] on the hotline [knew|could tell] anything about the {product}, [that|which] [disappointed|surprised]
  me, though I [found the answer|solved it] myself.
""",
    ),
    situation(
        "idea",
        "Manual is hard to read / Better pictures please / Print too small / About your booklet",
        """
- The print in the [booklet|manual] of the {product} is [far|] too small for [people over sixty|older eyes].
- [Step|Page] {small} of the manual shows the {part} [upside down|from the wrong side]; I [managed|got it done],
  others may not.
- [More pictures|Larger pictures] and fewer [words|legal pages] would [help|improve] the manual of the {product}.
""",
        state="have",
    ),
    situation(
        "idea",
        "Your new website / Shop is confusing / Lost on your page / About the search",
        """
- [Since|After] the [makeover|redesign] of your website I find [nothing|hardly anything], the old one was
  [clearer|better].
- The search [in|of] your shop [shows|brings up] {other_nouns} when I [type|look for] {nouns}. [Just so you know|You
  may want to know].
- [Grey|Pale] letters on [white|light] ground: [your shop|your website] is [a test for the eyes|hard to read], I say
  this as a [friend|regular customer].
""",
    ),
    situation(
        "idea",
        "Tone of your mails / Too much advertising / Do I need a survey? / Your letters",
        """
- Your [mails|messages] [sound|read] like [a robot|a lawyer], even when [all is well|I only bought a {product}]. [A
  little warmth|A human word] would [help|be nice].
- [Three|Four] surveys for one {product} are [too many|a bit much], I gave [top marks|five stars] already.
- [In the advert|On the poster] the {product} looks twice as large. [That is|I find that] not [honest|fair], [even
  if|though] I [like|keep] it.
""",
        state="have",
    ),
    situation(
        "idea",
        "About your driver / Manners at the door / Left the gate open / Not a friendly visit",
        """
- The {product} is here, but the driver [shouted at|was rude to] my {relative}. [I thought|I think] you should know.
- Your driver left our gate open and the [dog|cat] [ran off|got out]; it is back, [but|yet] [please speak to him|that
  must not happen].
- [He threw|The courier threw] the box [over the fence|onto the steps]. The {product} is fine, his manners are not.
""",
        state="any",
    ),
    situation(
        "praise",
        "Saved on our bill / A year with the {noun} / Report from a user / Numbers you may like",
        """
- After a year with the {product} our [energy costs|bills] are down by [a fifth|a quarter], [I thought|we think] you
  [may| might] like to [hear|know] that.
- [We kept|I kept] a list: the {product} [paid for itself|earned its price] in [two|three] winters. [Bravo|Well made].
- You may [quote|print] this: [no|not one] fault in [three|four] years with the {product}, and [I use it|it runs]
  [daily| day and night].
""",
        products=("Skerry Thermostat", "Tarn Battery"),
        state="have",
        happy=True,
    ),
)
