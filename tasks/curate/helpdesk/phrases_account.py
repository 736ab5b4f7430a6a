"""Account: what customers write about sign-in, profile and shared homes. Patterns as in `grammar.py`."""

from __future__ import annotations

from tasks.curate.helpdesk.situation import situation

ACCOUNT = (
    situation(
        "access",
        "Password not accepted / Cannot get in / App refuses me / Shut out since {weekday}",
        """
- The app [says|insists] that my password is wrong, although I [set|chose] it [myself|] [yesterday|on {weekday}].
- [Since|From] {weekday} I cannot [get into|open] my [profile|pages]: [wrong name or password|details unknown], it
  says. The {product} [runs|works] [on|all the same].
- [On the phone|On my tablet] I get in, on the [computer|laptop] the same details [are refused|do not work].
""",
    ),
    situation(
        "access",
        "Reset mail never comes / No link for a new password / Waiting for your mail / New password please",
        """
- I asked for a new password [{count} times|again and again] and [no mail|nothing] [arrives|comes], [not even in
  spam|spam folder included].
- The link [for a new password|to choose a new password] [opens|leads to] [an empty page|a page that says expired],
  [every time|each time].
- I [forgot|no longer know] my password and the mail that [should help|you send for this] goes to [a mailbox|an
  address] I [no longer have|gave up].
""",
    ),
    situation(
        "details",
        "New mail address / Please write to another address / Old mailbox closes / Change of contact",
        """
- Please use my new e-mail address for [everything|all messages]; the old one [is being closed|will be switched off].
- [Where|In which menu] can I [change|replace] the [mobile number|e-mail address] [you have|on file]? The app [shows
  it in grey|does not let me].
- Your messages [still|] go to my [former employer|old mailbox]. I [changed|corrected] this in the app [in
  {month}|twice], [without effect|and it did not stick].
""",
    ),
    situation(
        "access",
        "Security code does not come / Code to the old phone / New phone, no code / Six digits missing",
        """
- The [six-digit|security] code [never comes|does not come] to my new phone, so I [cannot sign in|stay outside].
- [I lost|My son lost] the phone that [gets|receives] the [security codes|six digits]. How do I [sign in|get in] now?
- The code [you text me|in your message] is [always|every time] [called invalid|refused] [when I type it|in the app].
""",
    ),
    situation(
        "access",
        "Blocked after three tries / Profile locked / How do I unlock it? / Too many attempts",
        """
- After [three|a few] attempts my profile was [blocked|locked], and the [waiting time|hour] it names [never
  ends|starts over].
- [My daughter|My son] [played with|tried to open] the app, and [now|since then] it says [profile blocked|locked for
  safety].
- [It says|The app says] that my [profile|login] is [suspended|locked], [without a reason|no reason given]. I can see
  neither my orders nor the {product}.
""",
    ),
    situation(
        "details",
        "Two profiles, one person / Make one of two / Orders split over logins / Put them together",
        """
- I have two profiles, one from the shop and one from the app. [Can|Could] you [make them one|put them together]?
- My {product} [sits|is] in one profile and [my orders are|the invoices are] in another, [both under my name|though
  both are mine].
- [By mistake|Without noticing] I signed up [a second time|twice], [and|so] [half|some] of my devices [are|show up]
  under the other [address|login].
""",
    ),
    situation(
        "details",
        "Erase my data / What do you store? / Copy of my data / Right to be forgotten",
        """
- Please [erase|delete] [everything|all] you have [stored|on file] about me; I [gave away|no longer use] the
  {product}.
- I [would like|want] a copy of [all data|everything] you [keep|store] about me [and our home|and my {product}].
- [Which|What] data does [the app|Northbeam] [keep|hold] about [my family|us], and [who sees it|how do I delete it]?
""",
    ),
    situation(
        "details",
        "New surname / I got married / Name is misspelt / Correct my name",
        """
- I [got married|changed my surname], please [change|correct] the name [in my profile|you have on file].
- My [first name|surname] is [misspelt|wrong] [in the app|in my profile] and on every [bill|parcel], [can you fix
  it|please correct it].
- My [husband|father] [died|passed away] [in {month}|this spring], and [the profile|everything] is in his name. [How
  do I| Can I] take it over?
""",
    ),
    situation(
        "access",
        "Access for my {relative} / Add a second person / Invitation fails / Sharing our home",
        """
- How [can I|do I] give my {relative} access to our home [in the app|]? The invitation ends [in an error|on a blank
  page].
- My {relative} [should|is to] [control|use] the {product} [from another phone|too], but the app [knows|accepts] only
  me.
- I [invited|added] my {relative} [on {weekday}|], and {they} sees [no rooms|an empty home] [after signing in|there].
""",
    ),
    situation(
        "details",
        "Strange rooms in my app / I see another home / Not my devices / Somebody else's data",
        """
- When I open the app I see [another family's|a stranger's] rooms [instead of|and not] mine.
- [Since|After] [signing in|I signed in] on {weekday} there is a {other} [in my list|under my devices] that is not
  [mine|in our house].
- The app greets me with [a name|the name of somebody] I do not know, and [shows|lists] orders I never [made|placed].
""",
    ),
    situation(
        "access",
        "Sold my {noun} / New owner cannot register / Remove device from my profile / Passing it on",
        """
- I [sold|gave] my {product} to a [neighbour|friend]. How do I [remove it from|take it out of] my [profile|list of
  devices]?
- I bought a used {product}, and the app says it [belongs to|is registered to] [another person|somebody else].
- [We moved out|I moved out] and [left|handed over] the {product} to the next [tenants|owners], but it [still hangs
  on|is still in] my [profile|login].
""",
        state="have",
    ),
    situation(
        "details",
        "Somebody signed in as me / Was that me? / Strange sign-in / Unknown phone in my profile",
        """
- I got a message that somebody signed in [as me|with my name] from [a city|a country] I have never been to.
- [In the list|Among the phones] with access to my home there is one I [do not know|never had].
- [At night|While we slept] [somebody|someone] [changed|switched] my password, [it was not me|and none of us did it].
""",
    ),
    situation(
        "details",
        "Mails in the wrong language / Change language / Too many newsletters / Settings for messages",
        """
- Since {weekday} [the app is|all your mails are] in [Dutch|French]. Where do I [set|change] the language?
- [In|Among] my settings I [find|see] no [box|switch] to stop the newsletter, [only|just] the [alarms|order messages].
- [I get|We get] every message from Northbeam [twice|in two languages]; [which setting|what] do I have to
  [change|correct]?
""",
    ),
)
