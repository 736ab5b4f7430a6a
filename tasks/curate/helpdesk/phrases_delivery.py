"""Delivery: what customers write about parcels on their way. Patterns as in `grammar.py`."""

from __future__ import annotations

from tasks.curate.helpdesk.situation import situation

DELIVERY = (
    situation(
        "trace",
        "Where is my {noun}? / Nothing has come / Overdue since {weekday} / Still waiting",
        """
- My {product} [should have been here|was supposed to come] [on {weekday}|{days} days ago], [but|and] [nothing has
  come| there is no sign of it].
- I have been waiting for [my|the] {product} for {days} days [now|already]; [the shop|your page] [promised|said] two.
- [It is|Now it is] {weekday} and the {product} [you announced|that was due] for [last week|the weekend] is [still not
  here|nowhere to be seen].
""",
        state="wait",
    ),
    situation(
        "trace",
        "Tracking does not move / Same status for days / Link shows nothing / Stuck in the depot",
        """
- The tracking [page|link] has shown the same [line|status] for {days} days: [waiting in the depot|parcel announced].
- [According to|If I believe] the tracking, my {product} has been [lying|sitting] in [a depot|the same depot] since
  {weekday}.
- The [number|link] you [mailed|sent] me [leads nowhere|is unknown to the carrier], so I [cannot see|have no idea]
  where the {product} is.
""",
        state="wait",
    ),
    situation(
        "trace",
        "Not handed to me / Says it was received / Signature is not mine / Nobody has the box",
        """
- According to [the courier|your mail] my {product} was handed over on {weekday}, but [nobody here|neither I nor my
  neighbour] [has it|got anything].
- [The app|Your page] says [received|handed over], with a signature that is [not mine|not ours]. [I have no|There is
  no] {product} [here|in this house].
- [I looked|We looked] [everywhere|behind every door], [but|yet] the {product} that the driver [claims|is said] to
  have left [on {weekday}|yesterday] is not there.
""",
        state="wait",
    ),
    situation(
        "trace",
        "Left at the wrong house / Parcel with a stranger / Dropped next door / Wrong street",
        """
- The driver [left|dropped] the {product} at [a house in the next street|number {small} instead of ours], and
  [they|the people there] [do not open|know nothing].
- [Some stranger|Somebody] [signed for|took] my {product} [two streets away|in another street]; [please get it to
  me|how do I get it].
- [A neighbour|Someone] sent me a photo: the box with my {product} [stands|is] in [his|a strange] hallway, [in another
  town|at the far end of town].
""",
        state="wait",
    ),
    situation(
        "redirect",
        "New address for the parcel / I am moving / Please send elsewhere / Other street now",
        """
- I [moved last weekend|am moving this month]; please send the {product} to [the new flat|my new place] [instead of|
  and not to] the old one.
- I [typed|gave] the wrong [house number|postcode] when I ordered the {product}. [Can|Could] you [correct|change] it
  [while it is still with you|before it leaves]?
- [Is it too late|Would it be possible] to have the {product} [sent|brought] to my [office|parents] [instead of my
  home| rather than to me]?
""",
        state="wait",
    ),
    situation(
        "trace",
        "One box is missing / Only half has come / Second parcel? / Incomplete",
        """
- Only one of [two|three] boxes [came|arrived]; [the one|the box] with the {part} [is missing|never turned up].
- [The {product} came|I got the {product}] [without|but not] the {part} that [belongs to it|is on the packing list].
- [Half|A part] of what I ordered is here, [but|yet] the {part} for the {product} [was not in it|was not among it].
""",
    ),
    situation(
        "redirect",
        "Evening slot possible? / Nobody home by day / Other time please / Day of the truck",
        """
- [Can|Could] the {product} be brought [in the evening|after five]? During the day [nobody is|I am not] [home|here].
- The carrier [wants|plans] to come on {weekday}, [but|when] [we are|I am] away. [Another day|Any other day] would
  [do|be fine].
- [A truck|The truck] with my {product} is [announced|planned] between eight and six; [could|can] you [narrow that
  down| name a shorter window]?
""",
        state="wait",
    ),
    situation(
        "redirect",
        "Pick-up point instead / Collect it myself / Parcel shop near work / Change to pick-up",
        """
- I would rather [collect|fetch] the {product} [from a parcel shop|at a pick-up point] [near my work|than wait at
  home].
- [Please|Kindly] [hold|keep] the {product} at the [depot|parcel shop]; I [will|can] fetch it [myself|by car].
- [Our house has|We have] no [safe place|porch], so [can|could] the {product} go to [the shop on the corner|a locker]?
""",
        state="wait",
    ),
    situation(
        "trace",
        "Driver did not ring / Card in the letterbox / I was home / Failed attempt",
        """
- The driver [did not even ring|says nobody was home], although I was [in all day|waiting by the door]. Now the
  {product} [goes back to|is in] the depot.
- [There was|I found] a card in the [letterbox|post]: [not at home|nobody there]. We were [both|all] in, and the
  {product} is [gone again|on the truck again].
- [For the second time|Twice now] the courier [drove past|turned round] [without ringing|at our gate] with the
  {product}.
""",
        state="wait",
    ),
    situation(
        "trace",
        "Held at customs / Papers missing at the border / Parcel stopped / Customs form",
        """
- The {product} is [held|stuck] at customs, and they [ask for|want] a [paper|form] that [only you have|the sender has
  to fill in].
- [Customs|The border office] [wrote|informs me] that [the form|a declaration] for the {product} is
  [missing|incomplete].
- For {days} days the parcel has been [at the border|in the customs hall]. [Who|Which of us] has to [act|do
  something]?
""",
        state="wait",
    ),
    situation(
        "trace",
        "When will it be shipped? / Not sent yet / Date for my {noun} / Has it left?",
        """
- When [will you ship|are you going to send] my {product}? [The shop|Your page] said two days, now it is {days}.
- [According to the app|The app says that] my {product} has been in preparation for {days} days. [Has it left|When
  does it leave] your warehouse?
- [I paid|I ordered] on {weekday} and [would like|want] to know [on which day|when] the {product} [goes out|is handed
  to the carrier].
""",
        state="wait",
    ),
    situation(
        "trace",
        "One parcel or two? / Coming together? / Two items, two dates / Split shipment",
        """
- Will the {product} and the {other} come [together|in one go] or in [separate|two] parcels?
- [The {other} is here|I have the {other}], [but|yet] of the {product} [I have heard nothing|there is no news]. [Are
  they| Were they] sent separately?
- [Your mail names|I see] two dates for [the {product} and the {other}|one order]. [Which one|Which of them] is right?
""",
        state="wait",
    ),
    situation(
        "trace",
        "Parcel went back to you / Please send again / Returned to sender / Second attempt",
        """
- The parcel with my {product} went back to you because [the label was unreadable|the house number was missing].
  Please send it [out again|again].
- [The carrier|The depot] [returned|sent] my {product} to [Northbeam|your warehouse] after [two|three] attempts, [but
  I still want it|and I still want it].
- [I missed|I was too late for] the pick-up by a day, so the {product} is on its way back to you. [Could|Can] it be
  [shipped|posted] once more?
""",
        state="wait",
    ),
)
