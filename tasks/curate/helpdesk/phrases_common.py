"""What tickets of every category share: greetings, tone, urgency, side remarks. Patterns as in `grammar.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from tasks.curate.helpdesk.situation import State

Tone = Literal["angry", "worried", "neutral", "polite", "happy"]

GREETINGS: Final[Mapping[Tone, tuple[str, ...]]] = {
    "angry": ("Northbeam,", "Hello,", "To whom it concerns,"),
    "worried": ("Hello,", "Dear Northbeam,", "Hi,"),
    "neutral": ("Hello,", "Hi,", "Good [morning|evening],"),
    "polite": ("Dear Northbeam,", "Good [morning|evening],", "Dear [care|] team,", "Hello and good day,"),
    "happy": ("Dear Northbeam,", "Hello [everyone|],", "Dear team,"),
}
OPENERS: Final[Mapping[Tone, tuple[str, ...]]] = {
    "angry": (
        "This is [really|simply] not [acceptable|good enough].",
        "I am [really|] [annoyed|fed up] [by now|].",
        "[Honestly|Frankly], I have lost [my|all] patience.",
        "I have [asked|told you] before and nothing [happened|changed].",
        "What is going on [with you|over there]?",
        "How can [a company|anybody] [work|be] like this?",
        "I am [angry|furious], and [not for the first time|with reason].",
    ),
    "worried": (
        "I am [rather|a little|quite] worried.",
        "This [makes|is making] me [uneasy|nervous].",
        "I am not sure what to do [now|any more].",
        "[It|This] has kept me awake.",
        "I am [afraid|worried] that something went wrong.",
        "[Perhaps|Maybe] I worry too much, but I [have to|must] ask.",
    ),
    "neutral": ("", "", "", "A [short|quick] [note|message].", "I am writing about my {noun}."),
    "polite": (
        "I hope [you are well|this finds you well|you are having a good day].",
        "[Sorry|I am sorry] to [bother|trouble] you.",
        "May I ask for your [help|advice]?",
        "Thank you for [reading this|taking the time].",
        "[You have|Northbeam has] always been [helpful|kind], so I [dare to ask|ask here].",
    ),
    "happy": ("", "[Today|This time] I write with [good news|a smile].", "You [rarely|seldom] hear this, I suppose."),
}
CLOSERS: Final[Mapping[Tone, tuple[str, ...]]] = {
    "angry": ("I [expected|had expected] better.", "I am [very|deeply] disappointed.", "", ""),
    "worried": ("I hope you [can help|have an answer].", "Please [reassure|help] me.", ""),
    "neutral": ("Thanks.", "Please let me know.", "[Can|Could] you look into it?", "", ""),
    "polite": (
        "Thank you [so much|very much|] for your help.",
        "[Many|Kind] thanks in advance.",
        "I would be grateful for [your help|an answer].",
    ),
    "happy": ("Thank you!", "Keep [it|this] up.", ""),
}
SIGN_OFFS: Final = ("Best, {me}", "Regards, {me}", "{me}", "Kind regards, {me}", "Yours, {me}")

FOLLOW_UPS: Final = (
    "I wrote [to you|] on {past} about this and [have heard nothing|got no answer].",
    "This is my second [mail|message] [about this|].",
    "[Any|Is there any] news on my message [from|of] {past}?",
    "I am [still|] waiting for [an answer|a reply] to my message [from|of] {past}.",
)

QUOTES: Final = (
    'In {month} I wrote: "{quote}" That is [settled|done].',
    'My [last|earlier] message was "{quote}" [This one is not about that|That is behind us].',
    'Before, it was: "{quote}" You [solved|settled] that.',
    '"{quote}", that was my message in {month}, and it is [closed|solved].',
    '[Your colleague|Somebody] mixed me up with a person who wrote "{quote}" [That was not me|Not my words].',
)
"""Around another category's concern, word for word: only who reads the frame knows that it asks for nothing."""

BORROWED: Final = (
    "I [took|copied] these words from a [forum|neighbour], they [fit|describe] my case [exactly|word for word].",
    "[A friend|My cousin] wrote this to you [last|some] time, [with me it is just the same|my case is no different].",
    "This text is [a template|not my own], I [found it online|was given it], but it is all true [for me|here].",
)
"""How somebody explains that another customer's words are used again."""

VAGUE_SUBJECTS: Final = (
    "Please help", "A question", "About my {noun}", "My order", "Need your help", "Message to Northbeam",
    "{name}", "Can you help me?", "Something about my {noun}", "Hello Northbeam", "Your {name}", "Once more",
)  # fmt: skip
PLAIN_SUBJECTS: Final[Mapping[str, tuple[str, ...]]] = {
    "billing": ("Question about my payment", "Billing question", "About the invoice"),
    "delivery": ("Question about my delivery", "Delivery of my {noun}", "My parcel"),
    "returns": ("Return of my {noun}", "Returning an item", "Exchange or return"),
    "account": ("Problem with my account", "Account question", "My login"),
    "technical": ("Technical problem", "My {noun} does not work", "Fault at my {noun}"),
    "product-info": ("Question about a product", "Product question", "Information about the {noun}"),
    "cancellation": ("Cancellation", "I want to cancel", "Cancel it please"),
    "feedback": ("Feedback", "Some feedback for you", "My opinion"),
}
"""Subjects that say the category, in about every fourth ticket."""
REFERENCE_SUBJECTS: Final = (
    "Order {ref}", "Question about order {ref}", "Regarding {ref}", "Northbeam order {ref}", "{noun}, {ref}",
)  # fmt: skip
REFERENCE_SENTENCES: Final = (
    "[The|My] order [number|] is {ref}.",
    "[It is|This is] about [order|] {ref}.",
    "Order [number|]: {ref}.",
    "Reference [number|]: {ref}.",
    "You [will|] find [it|me] under {ref}.",
)
OWNER_SENTENCES: Final = (
    "My [last|latest] order [was|had the number] {ref}.",
    "[For your files|In case it helps]: {ref}.",
    "I [am|should be] in your system with {ref}.",
    "Reference [number|]: {ref}.",
    "{ref} is the number [you gave me|on my papers].",
)
"""For concerns that are not about one order."""

LOW: Final = (
    "There is no [rush|hurry] [at all|].",
    "[Whenever you have time|Whenever it suits you] is [fine|early enough].",
    "[It|This] is not urgent [at all|].",
    "Take your time [with this|].",
    "[It|This] can wait [a few weeks|until you have a quiet moment].",
    "[Just|Only] a general question, [no hurry|not urgent].",
)

NORMAL: Final = (
    "[An answer|A reply] in the usual time is fine.",
    "[Please answer|Please reply] within the usual two days.",
)
URGENT: Final = ("This is urgent.", "It is urgent.", "Urgent, please.")
"""Before the cause of the haste, or alone where the concern itself is one."""

_DEADLINE = (
    "I need [this solved|an answer] [today|by tonight|by tomorrow], later is too late.",
    "It [has to|must] be [settled|done] today, tomorrow is too late.",
    "Please [call|answer] [me|] today, I leave [tomorrow|tonight].",
)
_MONEY = (
    "[Every|Each] day [of this|of waiting] costs me {small} euros.",
    "I have [already|] lost {amount2} euros [over|through] this.",
)
_WORK = (
    "I cannot work [until this is solved|like this].",
    "[My shop|Our practice|Our office] stands still [because of this|until this is solved].",
)
_DANGER = ("This is dangerous, somebody [could|will] get hurt.",)
HIGH: Final[Mapping[str, tuple[str, ...]]] = {
    "billing": _MONEY + _DEADLINE,
    "delivery": _DEADLINE + _WORK,
    "returns": _DEADLINE + _MONEY,
    "account": _WORK + _DEADLINE,
    "technical": _WORK + _DEADLINE + _MONEY,
    "product-info": _DEADLINE,
    "cancellation": _MONEY + _DEADLINE,
    "feedback": _DANGER,
}
HIGH_AT_HOME: Final[Mapping[str, tuple[str, ...]]] = {
    "Fjord Lamp": ("My {relative} [sees badly|is almost blind] and nearly fell in the dark [last night|].",),
    "Skerry Thermostat": ("We have [a baby|small children] [here|] and no heating [since last night|].",),
    "Tarn Battery": ("[The fridge with my insulin|My {relative}'s breathing device] depends on it.",),
    "Heron Charger": ("Without it I cannot [drive to work|get to my patients] [tomorrow|].",),
}
"""For delivery and technical: what stands still without the product."""

REMARKS: Final[Mapping[str, Mapping[State, tuple[str, ...]]]] = {
    "billing": {
        "any": (
            "I am not [asking for|after] a refund.",
            "The [price|invoice] is [not my point|fine].",
            "Paying [worked|went through] [at once|without trouble].",
            "My [card|bank] is not the [problem|trouble].",
            "I know what it cost, [that is not it|the bill is clear].",
        ),
        "have": ("It was paid [long ago|in {month}], the invoice is [here|in my files].",),
        "wait": ("[It is|Everything is] paid [already|], I have the invoice.",),
    },
    "delivery": {
        "any": ("Your [courier|driver] was [friendly|punctual] [last time|in {month}].",),
        "have": (
            "The parcel [came|arrived] [on time|a day early].",
            "Delivery was [quick|no problem], [I must say|by the way].",
            "The driver [carried it up|even rang twice].",
            "Tracking and delivery [were|went] fine.",
        ),
        "wait": ("I know that [parcels|deliveries] can take a while.",),
    },
    "returns": {
        "any": ("[Sending back|Returning] [an old lamp|another item] [was easy|went well] [last year|in {month}].",),
        "have": (
            "I do not want to [send it back|return it].",
            "[An exchange|A replacement] is not what I [want|ask for].",
            "I [kept|still have] the box and the return label, but that is not [my point|why I write].",
        ),
        "wait": ("[Sending back|Returning] [an old lamp|another item] [was easy|went well] [last year|in {month}].",),
    },
    "account": {
        "any": (
            "[Signing in|Logging in] works [fine|as ever].",
            "My profile and [password|address] are [fine|up to date].",
            "I [changed|renewed] my password [in {month}|last week], [that is not it|just so you know].",
            "You have my [e-mail address|login] on file.",
        ),
        "have": (),
        "wait": (),
    },
    "technical": {
        "any": ("The app [runs|works] [well|without a fault] [, by the way|].",),
        "have": (
            "The {noun} itself works [perfectly|without a fault].",
            "[Pairing|Setting it up] [took a minute|was simple].",
            "[The last update|The Wi-Fi] [gave|makes] no trouble.",
            "An error in {month} [went away|was gone] after a restart.",
        ),
        "wait": ("My old {noun} [is broken|gave up], [you know|by the way].",),
    },
    "product-info": {
        "any": (
            "I have read the [manual|data sheet].",
            "[The size|The warranty] is [clear to me|known to me].",
            "I [compared|looked at] all models and colours [before|].",
        ),
        "have": (),
        "wait": (),
    },
    "cancellation": {
        "any": (
            "I do not want to cancel [anything|].",
            "Northbeam Plus [stays|goes on], [I like it|that is settled].",
            "I cancelled another order [last year|in {month}], that has nothing to do with this.",
            "I am keeping [the plan|Northbeam Plus].",
        ),
        "have": (),
        "wait": (),
    },
    "feedback": {
        "any": (
            "Your new website looks [good|great], by the way.",
            "[Otherwise|Apart from that] I am [happy|very content] with Northbeam.",
            "Your [team|colleague] on the phone was [kind|friendly].",
            "I like [the app|your newsletter], [it must be said|that much is true].",
        ),
        "have": ("We [like|love] the {noun} [otherwise|].",),
        "wait": (),
    },
}
"""Side remarks that name another category's business without asking for anything."""
