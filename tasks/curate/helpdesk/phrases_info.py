"""Product information: what customers ask before and after buying. Patterns as in `grammar.py`."""

from __future__ import annotations

from tasks.curate.helpdesk.situation import situation

PRODUCT_INFO = (
    situation(
        "facts",
        "Does the {noun} fit? / Old house, new {noun} / Will it work here? / Suitable for us?",
        """
- [Does|Would] the {product} [fit|work] in [a house|a flat] from [the fifties|1962] with [old wiring|two-wire cables]?
- [Will|Would] the {product} [work|get along] with [the speaker|the smart plugs] of another [maker|brand] [we
  have|that we own]?
- We [want|plan] to [put|use] the {product} in the {room}. Is [the damp|the dust] there [a problem for it|too much]?
""",
    ),
    situation(
        "facts",
        "How much power does it use? / Consumption / Watts in standby / Yearly use",
        """
- How [much power|many watts] does the {product} [use|draw] [in standby|when idle]? [The box|Your page] [does not
  say|is silent about it].
- [What|Which] consumption [should|must] I [expect|reckon with] when the {product} [runs|works] [all day|eight hours a
  day]?
- [A friend|My electrician] says the {product} [uses|draws] more than [the label claims|five watts]. [What are|Do you
  know] the exact figures?
""",
    ),
    situation(
        "facts",
        "Outdoors as well? / Rain and frost / Use in the garden / How cold may it get?",
        """
- [May|Can] the {product} [hang|be mounted] [outdoors|under a roof outside], or does [rain|frost] harm it?
- How [cold|hot] may it get [around|near] the {product}? In our {place} it is [often|sometimes] [below zero|above
  forty degrees].
- Is the {product} [safe|all right] in a [bathroom|greenhouse], [with steam and all|where it is always damp]?
""",
        products=("Tarn Battery", "Heron Charger"),
    ),
    situation(
        "range",
        "Old or new model? / Difference to the {other_noun} / Which one is for me? / Compare models",
        """
- What is the difference between [this year's|the new] {product} and [last year's|the one before], [apart from the
  price| besides the colour]?
- For [a family of five|two people] and a [small|large] {room}, would you [take|advise] the large or the small
  {product}?
- What can the new {product} do that the [old one|last one] cannot?
""",
    ),
    situation(
        "facts",
        "How long is the warranty? / Guarantee on the {part} / What is covered? / Warranty abroad",
        """
- How [long is|many years is] the warranty on the {product}, and does it [cover|include] the {part}?
- [Does|Will] the guarantee [hold|still count] if [my own electrician|a friend] [mounts|installs] the {product}?
- [Is there|Do you sell] a longer warranty for the {product}, [and what does it cover|say for five years]?
""",
    ),
    situation(
        "range",
        "Other colours? / Is it made in {colour}? / Choice of finish / Matching {colour2}",
        """
- [Does the {product} come|Will the {product} be made] in {colour}? [In the shop|On your page] I [only see|see only]
  {colour2}.
- Is the {colour} of the {product} [matt or glossy|more warm or more cold]? Pictures [differ|lie].
- [Which|What] colours [are there|do you have] [for|of] the {part}, [and can it be changed later|can one buy it
  singly]?
""",
    ),
    situation(
        "facts",
        "Without internet? / Works offline? / No Wi-Fi in the {room} / Is an app needed?",
        """
- Does the {product} [work|run] without [internet|Wi-Fi]? [In our cabin|In the {room}] there is none.
- Must I [have|use] the app with the {product}, or are the buttons enough? [My mother|My uncle] has no smartphone.
- If Northbeam's servers [were down|closed one day], would the {product} [still|] [keep working|go on working]?
""",
    ),
    situation(
        "facts",
        "Electrician needed? / Mounting it myself / How is it installed? / Tools for the job",
        """
- Can I [mount|install] the {product} myself, or [does it take|is that work for] an electrician?
- Which [screws|tools] does [mounting|fitting] the {product} [need|take], and does any wall do?
- How long does [it take|an electrician need] to [put in|install] the {product}, [roughly|more or less]?
""",
        products=("Skerry Thermostat", "Tarn Battery", "Heron Charger"),
    ),
    situation(
        "range",
        "Back in stock? / When can I buy it? / Sold out everywhere / Waiting for the {noun}",
        """
- When [will the {product} be in stock|is the {product} expected] again? [The button|Your page] has said [sold out|not
  available] [for weeks|since {month}].
- Will you [still|] [make|sell] the {product} [next year|in autumn], or is it being replaced?
- I [missed|was too late for] the offer [for|on] the {product}. [Does it come back|Will there be another one] [in
  autumn| this year]?
""",
    ),
    situation(
        "range",
        "Spare {part}? / Part to buy singly / Where to get a {part} / Accessories",
        """
- [Can one|Can I] buy the {part} of the {product} [singly|as a spare part], and what does it cost?
- Do you [have|sell] a longer cable for the {product}? Mine is [a metre|half a metre] too short.
- Which {part} fits a {product} from [three|four] years ago, the [new|current] one?
""",
    ),
    situation(
        "facts",
        "How loud is it? / Size and weight / Will it fit on the wall? / Measurements please",
        """
- How [wide|deep] and how heavy is the {product} [with|without] the {part}? [I have|There are] only [forty|sixty]
  centimetres.
- How loud is the {product} [at full load|when it works]? It would [hang|be] next to [the bedroom|a bed].
- [Could|Can] you [send|give] me the [measurements|drawing] of the {product}? [The carpenter|Our builder] [asks|wants
  to know].
""",
    ),
    situation(
        "facts",
        "Manual in my language / Where is the data sheet? / Manual wanted / Document for the landlord",
        """
- Is there a manual for the {product} in [Polish|Turkish|Italian], [as a file|to print]?
- [Where|On which page] do I find the data sheet of the {product}? [My landlord|The grid office] wants to [read|see]
  it.
- [Which|What] safety [marks|certificates] does the {product} [have|carry]? [My insurer|Our landlord] [asked|would
  like to know].
""",
    ),
)
