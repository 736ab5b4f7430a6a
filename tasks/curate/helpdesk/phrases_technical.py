"""Technical: what customers write about products that do not work. Patterns as in `grammar.py`."""

from __future__ import annotations

from tasks.curate.helpdesk.situation import situation

TECHNICAL = (
    situation(
        "repair",
        "{noun} stays dead / Does not come on / No sign of life / Will not start",
        """
- Since {weekday} my {product} [does not come on|shows no sign of life] [any more|], [whatever I press|socket and fuse
  are fine].
- The {product} [worked|ran] for {days} days and [then|now] [it stays off|nothing happens] [when I switch it on|any
  more].
- [Every|Each] morning the {product} is [dead|off] until I [pull the plug|switch the fuse] and [wait|start again].
""",
    ),
    situation(
        "repair",
        "Strange behaviour of the {noun} / It does what it wants / Something is wrong / {noun} acts up",
        """
- My {product} {fault}, [and|] [restarting|a restart] [helps for an hour|changes nothing].
- [At first|For weeks] all was well, now the {product} {fault}.
- The {product} {fault} [since {weekday}|every evening]. I paid {amount} euros for it.
""",
    ),
    situation(
        "repair",
        "The {noun} again / It {fault} / Fault at the {noun} / Help with my {noun}",
        """
- [Can|Could] you tell me why the {product} {fault}? [Nothing was changed|We changed nothing] [here|in the {room}].
- [Whenever|When] [we use|somebody uses] the app the {product} {fault}, by hand [all is well|it behaves].
- [Two|Three] times [this week|since {weekday}] my {product} failed: it {fault}.
""",
    ),
    situation(
        "repair",
        "No Wi-Fi / Pairing fails / Cannot find the {noun} / Setup stops at step three",
        """
- The {product} [does not find|will not join] [my|our] Wi-Fi; the light [blinks|keeps blinking] and the app [gives up|
  stops] [at step three|at the end].
- [Pairing|Setting up] the {product} [fails|breaks off] [every time|each time] at [the password of the router|the last
  step].
- [After|Since] [we got|I bought] a new router the {product} is [not found|invisible], while everything else
  [connects|is found].
""",
    ),
    situation(
        "repair",
        "Shown as offline / App says no connection / Drops out / Not reachable",
        """
- The app [shows|lists] my {product} as offline, [although|while] it [hangs|stands] [right beside|next to] the router.
- [Several times|Ten times] a day the {product} [loses|drops] the connection and [comes back|returns] [by itself|after
  minutes].
- [From work|When I am out] I cannot reach the {product}, at home [the app|it] [controls it|works].
""",
    ),
    situation(
        "repair",
        "Update stuck / Firmware does not finish / Hangs at {percent} percent / After the update",
        """
- The [update|firmware] of my {product} has [stood|been stuck] at {percent} percent since {weekday}.
- Since the [last|latest] update the {product} {fault}.
- [Your app|The app] [offers|wants to load] the same update for the {product} [every day|again and again] and
  [ends|breaks off] with [a red cross|an error].
""",
    ),
    situation(
        "repair",
        "Error {code} / What does {code} mean? / Code on the display / Message {code}",
        """
- My {product} [shows|reports] error {code} and [stops|does nothing more].
- [Error|The message] {code} [comes up|appears] [every|each] [morning|evening], [then|and] the {product} [is
  silent|waits].
- The [manual|booklet] [does not list|knows no] {code}, but that is what the {product} [shows|says] [every
  evening|now].
""",
    ),
    situation(
        "safety",
        "It smells burnt / Too hot to touch / Smoke from the {noun} / Afraid of fire",
        """
- The {part} of my {product} [gets|becomes] [so hot that I cannot touch it|burning hot], and it smells [burnt|of
  burning plastic].
- [Smoke|A thin line of smoke] came out of the {product} [last night|this morning]. [I pulled the plug|It is off now].
- There is a [brown|black] mark [around|on] the {part} of the {product} and [it|the room] smells [burnt|scorched].
""",
        urgent=True,
    ),
    situation(
        "safety",
        "I got a shock / Sparks / Fuse blows each time / Is this dangerous?",
        """
- When I touched the {part} of the {product} I [got|felt] an electric shock.
- There were sparks [at|from] the {part} of the {product} when I [switched it on|plugged it in].
- [The fuse blows|All the lights go out] [whenever|every time] the {product} starts, and [something crackles|there is
  a crackling sound] [in the wall|inside].
""",
        urgent=True,
    ),
    situation(
        "repair",
        "Strange noise / Humming at night / It whistles / Loud {noun}",
        """
- My {product} [hums|whistles] so loudly [at night|] that we [hear it next door|cannot sleep].
- [A clicking|A rattling] [noise|sound] comes from the {product}, [about|] once a minute, [day and night|since
  {weekday}].
- [It was silent|There was no sound] for {days} days, now the {product} [buzzes|hums] [as soon as|when] it [works|is
  on].
""",
    ),
    situation(
        "repair",
        "Timer ignored / Plan not followed / Wrong times / Schedule forgotten",
        """
- The {product} [ignores|forgets] the [schedule|timer] I set: it starts [at night|an hour late] or [not at all|at
  random].
- [Since|After] the clocks [changed|went forward] [every|each] time plan of the {product} is [an hour off|wrong].
- I [set|saved] the [weekly plan|times] {count} times, the {product} keeps to the old times.
""",
    ),
    situation(
        "repair",
        "Readings cannot be right / Wrong numbers / Chart is empty / Values jump",
        """
- The [figures|values] of the {product} in the app [cannot be right|make no sense]: {percent} percent [at noon|by day]
  and [zero|nothing] [a minute later|at night].
- The [chart|history] of my {product} has been empty since {weekday}, [although|while] it [runs|works] [day and
  night|].
- [The meter|My meter] in the cellar [says|counts] [half of what|twice what] the {product} [reports|shows].
""",
        products=("Tarn Battery", "Heron Charger"),
    ),
    situation(
        "repair",
        "After the power cut / Since the storm / Lost its settings / Nothing saved",
        """
- [After|Since] the [power cut|thunderstorm] on {weekday} my {product} [has lost|forgot] [all|its] settings and [takes
  no new ones|must be set up every day].
- The power was [off|gone] for an hour, and [now|since then] the {product} {fault}.
- [Every|Each] time the power [fails|goes] for a second, the {product} [needs|wants] to be set up [anew|from scratch].
""",
    ),
)
