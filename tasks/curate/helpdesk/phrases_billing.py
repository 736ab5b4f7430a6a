"""Billing: what customers write about charges, invoices and fees. Patterns as in `grammar.py`."""

from __future__ import annotations

from tasks.curate.helpdesk.situation import situation

BILLING = (
    situation(
        "charges",
        "Charged twice / Two debits for one {noun} / Same amount taken again / Double booking on my card",
        """
- I [was|have been] charged [twice|two times] for [the same|one] {product}, [once|first] on {weekday} and [again|once
  more] on {weekday2}.
- My [card|bank] statement [shows|lists] {amount} euros [twice|two times], [although|but] I [bought|ordered] [only
  one|just one] {product}.
- [You|Northbeam] took {amount} euros [from my account|from my card] on {weekday} and [then|later] the [same|very
  same] sum [again|a second time].
""",
    ),
    situation(
        "charges",
        "Wrong sum on the bill / Amount does not match / Paid more than agreed / Question about the total",
        """
- The [invoice|bill] [says|comes to] {amount} euros, but [the shop|your website] showed {amount2} euros when I
  [bought|ordered] the {product}.
- [At checkout|On the order page] the {product} cost {amount2} euros and now {amount} euros [have been|were] [debited|
  booked]. [Where does the difference come from|How do you explain the difference]?
- I [agreed to|confirmed] {amount2} euros for the {product}, yet [you took|what you took was] {amount} euros.
""",
    ),
    situation(
        "invoice",
        "No invoice yet / Paper for my accountant / Still no bill / Document for the tax office",
        """
- I [still|] have not [received|been sent] [the invoice|a bill] for my {product} and [my accountant|our bookkeeper|my
  tax adviser] [asks|keeps asking] for it.
- [The confirmation came|I got a confirmation] by mail, but [the invoice|a proper bill] for the {product} was
  [never|not] attached. [Could|Can] you send it?
- For my [tax return|expenses] I [need|am missing] the [invoice|bill] of the {product}; in the app [the list is
  empty|the download does nothing].
""",
    ),
    situation(
        "invoice",
        "Company name on the invoice / VAT number missing / Invoice made out wrongly / Please correct the bill",
        """
- [Could|Can] you put [our company name|the name of our firm] and VAT number on the invoice? [It|The one I have] only
  shows my [private|home] address.
- The [bill|invoice] for the {product} [carries|has] the wrong [company name|VAT number], so our [bookkeeping|office]
  [rejects|will not accept] it.
- [I bought|We bought] the {product} for [the office|our practice], but the [document|bill] is made out to me
  [privately|as a private person]. Please [correct|change] it.
""",
    ),
    situation(
        "charges",
        "Where is my money? / Refund not booked / Still no credit / Money not on my account",
        """
- I sent the {product} back [weeks ago|{days} days ago] and you [confirmed|wrote] that it is with you, but the
  {amount} euros are [still not|not yet] on my [account|card].
- [You promised|Your mail promised] a refund of {amount} euros [on {weekday}|{days} days ago], and my bank
  [sees|shows] [nothing of it|no such payment].
- The order was [called off|cancelled] by you, [fine|all right], but the {amount} euros I had paid [have not come
  back|are still missing].
""",
    ),
    situation(
        "charges",
        "Discount not applied / Voucher ignored / Code accepted but full price / Where is my ten percent?",
        """
- The [voucher|code] from your newsletter was [accepted|shown as valid] [at checkout|on the order page], [yet|but] I
  [paid|was asked for] the full price of the {product}.
- [Ten|Fifteen] percent off the {product} was [what you advertised|the offer], [but|yet] {amount} euros is the price
  [without it|before the discount].
- I [entered|typed in] my [voucher|welcome code] and the [discount|reduction] [disappeared|was gone] when I paid for
  the {product}.
""",
    ),
    situation(
        "charges",
        "Card refused / Payment does not go through / Checkout stops / Cannot pay",
        """
- [Three times|Again and again] [the checkout|the payment page] [refuses|rejects] my [card|direct debit],
  [although|even though] my bank says [everything is fine|there is enough money].
- When I [try|want] to pay for the {product}, the page [turns white|stops] after [the card number|the security code]
  and [nothing is booked|no payment is made].
- [Paying|The payment] by [card|bank transfer] [fails|breaks off] [every time|each time], while the {product}
  [stays|is still] in my basket.
""",
        state="wait",
    ),
    situation(
        "charges",
        "Unknown debit / What is this charge? / Strange entry on my statement / Debit I cannot place",
        """
- There is a [debit|charge] of {amount} euros from Northbeam on my [statement|card] that I [cannot place|do not
  recognise].
- [What|Which purchase] are the {amount} euros [for|about] that you [took|collected] on {weekday}? [My {product} was
  paid long ago|I paid for my {product} in {month}].
- My [wife|husband|partner] [noticed|found] {amount} euros going to Northbeam, and [neither of us|none of us]
  [knows|can say] [what for|why].
""",
    ),
    situation(
        "charges",
        "Reminder although paid / Dunning letter / Already transferred / Second notice received",
        """
- I [got|received] a [payment reminder|second notice] for the {product}, [but|although] I [transferred|sent] the money
  [on {weekday}|{days} days ago].
- [Your letter|Your mail] says the {product} is [unpaid|still open], while my bank [shows|confirms] the
  [transfer|payment] of {amount} euros.
- [Why|For what reason] do you [threaten me with|send me] a [late fee|reminder fee]? The {amount} euros [left my
  account| were paid] {days} days ago.
""",
    ),
    situation(
        "charges",
        "Instalments ignored / Whole sum at once / Rates not as agreed / Monthly plan for the {noun}",
        """
- I [agreed on|chose] [three|six] instalments for the {product}, [but|and now] the whole sum was [debited|taken] at
  once.
- [Is it possible|Would it be possible] to [pay|settle] the {amount} euros for the {product} in [monthly|smaller]
  instalments [after all|instead]?
- [The second|The next] instalment for my {product} was [higher|larger] than [the first|agreed], [can|could] you
  [explain| check] that?
""",
    ),
    situation(
        "charges",
        "Plus fee taken early / Wrong date of debit / Monthly fee / Debit before payday",
        """
- The [monthly fee|amount] for Northbeam Plus [was taken|left my account] [a week early|on the wrong day].
- I [get paid|receive my salary] on the [first|fifth], [but|yet] the fee for Northbeam Plus is [debited|booked]
  [days|a week] before. [Can|Could] [the date|that] be [moved|changed]?
- [Two fees for Northbeam Plus were|The fee for Northbeam Plus was] [collected|debited] in {month} [although the trial
  month was to be free|although I pay by the year].
""",
    ),
    situation(
        "charges",
        "Plus became more expensive / New price / Higher fee / Why the increase?",
        """
- Why [has the price of Northbeam Plus gone up|did the price of Northbeam Plus go up]? [Nobody|No one] [told|informed]
  me [about it|beforehand].
- [Since|From] {month} [you charge|I pay] {small2} euros instead of {small} for Northbeam Plus, [without|and I know of
  no] [notice|explanation].
- The fee for Northbeam Plus on my statement is [higher|two euros higher] than in [the contract I signed|the offer I
  got].
""",
    ),
)
