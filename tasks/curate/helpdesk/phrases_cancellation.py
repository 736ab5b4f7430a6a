"""Cancellation: what customers write to end an order, a plan or a visit. Patterns as in `grammar.py`."""

from __future__ import annotations

from tasks.curate.helpdesk.situation import situation

CANCELLATION = (
    situation(
        "stop_order",
        "Please stop my order / Do not send the {noun} / Changed plans / Take back my order",
        """
- Please [stop|do not send] the {product} I [ordered|chose] [on {weekday}|{days} days ago]; [our plans changed|we need
  it no more].
- I [want|wish] to [withdraw from|call off] the [purchase|order] of the {product} [before it leaves|as long as it is
  with you].
- [We do|I do] not [need|want] the {product} any more. Please take the order off [your list|the books].
""",
        state="wait",
    ),
    situation(
        "stop_order",
        "Ordered by mistake / Clicked twice / One order too many / Second one was an accident",
        """
- I [clicked|pressed] twice and now there are two orders for [one|the same] {product}. [One|The second] must [go|be
  stopped].
- [My son|My little daughter] ordered a {product} [with my phone|while playing]; please [undo|annul] [this|it].
- I ordered a {product} [by accident|by mistake], it was meant to be a {other}. Please [stop|drop] the first one.
""",
        state="wait",
    ),
    situation(
        "stop_order",
        "Waited long enough / Too late for me / Forget the order / Bought elsewhere",
        """
- The {product} is so late that I [bought one|found one] elsewhere. Please call the order off, [do not send it|I will
  not take it in].
- After {days} days of [empty tracking|waiting] I [no longer want|have no more use for] the {product}. Please
  [end|annul] the order.
- If the {product} [has not been sent|is not on its way] yet, then [drop|end] the order, I [found another one|no
  longer need it].
""",
        state="wait",
    ),
    situation(
        "end_plan",
        "End of Northbeam Plus / Leaving the plan / No longer needed / Plus until when?",
        """
- I [want|would like] to [end|leave] Northbeam Plus [at the end of the month|when the year is over].
- [We moved|I moved] into a [flat|house] without a {product}, so [Northbeam Plus|the plan] is [of no use|useless]
  [now|to us] and [should|can] end.
- How do I [get out of|end] Northbeam Plus? [The app|Your page] only offers larger plans.
""",
    ),
    situation(
        "end_plan",
        "No renewal please / Switch off auto-renewal / Not another year / Contract should run out",
        """
- Please let Northbeam Plus run out [in autumn|after this year]; I do not want [it renewed| another year].
- [Your mail|The app] says that my plan will be [renewed|extended] [by itself|for a year]. [Please prevent that|I do
  not agree].
- [Where|How] do I [switch off|stop] the [automatic renewal|renewing] of [my plan|Northbeam Plus]?
""",
    ),
    situation(
        "end_plan",
        "Stop the trial / Before it costs money / Free month ends / Trial not wanted",
        """
- The free month of Northbeam Plus [ends|is over] [soon|on {weekday}], and I do not want [to keep it|to pay for it].
- I [only|just] [tried|tested] Northbeam Plus. Please stop it before [it costs money|the first fee].
- My mother [clicked on|signed up for] the Plus trial [without knowing|by accident]. Please [end|stop] it [for her|
  again].
""",
    ),
    situation(
        "stop_order",
        "Installer not needed / Call off the visit / Appointment on {weekday} / No visit please",
        """
- [The installer|Your fitter] is to come on {weekday} for the {product}. [Please call him off|We do not need the visit
  any more].
- I [have to|must] [give up|drop] the appointment for [fitting|mounting] the {product}, [the wall is not ready|a
  friend did it], and do not [want|need] a new one.
- Please [strike|remove] the visit [booked for|on] {weekday} [from your list|]; the {product} is [already up|fitted
  already].
""",
        products=("Skerry Thermostat", "Tarn Battery", "Heron Charger"),
        state="have",
    ),
    situation(
        "stop_order",
        "Withdraw my pre-order / Pre-order no longer wanted / No more waiting list / Take my name off",
        """
- Please take my pre-order of the [new|next] {product} [from|off] your list, I [am happy with|will keep] the old one.
- I [put|wrote] my name [down|on the list] for the [new|coming] {product} and [no longer want|do not want] it.
- Can my pre-order [of|for] the {product} [still|] be [undone|withdrawn]? [I decided against it|We decided not to
  buy].
""",
        state="wait",
    ),
    situation(
        "end_plan",
        "Extra warranty no longer wanted / End the protection / Insurance for the {noun} / Drop the add-on",
        """
- I [took|booked] the [five-year protection|extra warranty] with the {product} and [want|would like] to [end|drop] it.
- The [add-on|protection] [for|on] my {product} should [end|stop], I [sold|gave away] the device.
- [How do I|Can I] [get rid of|end] the extra warranty [alone|] and keep the {product}?
""",
        state="have",
    ),
    situation(
        "end_plan",
        "We are moving abroad / Close the contract / Everything must end / Last day of the plan",
        """
- We [move|are moving] abroad in [two|three] months; [our contract|our plan] with Northbeam [must|should] end [then|on
  that day].
- I am [handing over|giving up] the [house|flat], [so|and] [the service contract|the plan] for the {product} [has to
  end|is no longer needed].
- [My notice|My letter of notice] for Northbeam Plus, [sent|given] in {month}, [was never confirmed|got no answer].
  [When|On what day] does it end?
""",
    ),
    situation(
        "stop_order",
        "Only part of the order / Without the {other_noun} please / Take one item out / Smaller order",
        """
- Please [take|strike] the {other} [out of|from] my order and send [only|just] the {product}.
- From my order I [want|will take] the {product}, [but not|not] the {other} [any more|after all]; please
  [strike|remove] that one.
- Can I [reduce|cut] my order to one {product}? [The second|The other] is no longer [needed|wanted].
""",
        state="wait",
    ),
    situation(
        "stop_order",
        "Order of my {relative} / Stop it for my {relative} / On behalf of my {relative} / Cannot use it any more",
        """
- My {relative} [ordered|chose] a {product} and [is in hospital now|cannot use it now]. Please [stop|annul] the order
  [for us|].
- On behalf of my {relative}, who [did not understand|was talked into] the purchase, I [withdraw|take back] the order
  of the {product}.
- [The shop|Your shop] lets only my {relative} [undo|stop] the order of the {product}, and {they} has no
  [computer|internet]. [Please do it|Can you do it] for us.
""",
        state="wait",
    ),
)
