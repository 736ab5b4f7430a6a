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
    "[Next week|Any day this month] is soon enough.",
    "[Just|Only] a general question.",
    "I am [just|only] curious.",
    "[An answer|Your answer] [can wait|need not come today].",
    "Please [see to|take] the pressing cases first.",
    "It can wait until [things are quieter|you have a quiet moment].",
    "[You need not|Please do not] hurry [for me|].",
    "[Nothing|Nothing here|Not much] depends on it.",
)

_DEADLINE = (
    "I need [this solved|an answer] by [tomorrow noon|tonight|{soon} at the latest], [we leave then|later is no use].",
    "On {soon} [the landlord|the surveyor] comes [to check|], it must be [settled|done] [by|before] then.",
    "It [has to|must] be [settled|done] today, tomorrow [is|will be] too late.",
    "Please [call|answer] [me|] today, [we|I] [fly|leave] [tomorrow|tonight].",
    "[I have|There are] only two days left [before the handover|until my deadline].",
)
_MONEY = (
    "My account is overdrawn [now|], the bank [charges|bills] me for [every|each] day.",
    "[Every|Each] day [of this|of waiting] costs me {small} euros.",
    "I have [already|] lost {amount2} euros [over|through] this.",
    "I had to [borrow money|put off my rent] because of this.",
)
_WORK = (
    "I work from home and cannot [work|do my job] [until this is solved|like this].",
    "[My shop|Our practice|Our office] [had to close|stands still] [because of this|until this is solved].",
    "[My employees|Four people] are [sitting idle|waiting], nobody can work.",
)
_FEE = (
    "The [money|fee] [is taken from|leaves] my account [tonight|tomorrow], so it must [happen|be done] before.",
    "If this is not [done|settled] [today|by tomorrow], I [lose|am out] {amount2} euros.",
)
_ELECTRICIAN = (
    "The electrician [starts|comes] tomorrow [at eight|morning], I [must|have to] know before.",
    "The offer [ends|runs out] tonight and I cannot decide without [your answer|knowing].",
)
_DANGER = (
    "Somebody [could|will] get [badly|] hurt [if it stays like this|], please act [today|at once].",
    "A child was nearly [hurt|injured] [because of this|], please act [today|at once].",
)
_INTRUDER = (
    "[Somebody|A stranger] may be [controlling our heating|watching when we are away] right now.",
    "[Somebody|A stranger] can [open|read] [our plans|our home] at this very moment.",
)
HIGH: Final[Mapping[str, tuple[str, ...]]] = {
    "billing": _MONEY + _MONEY + _DEADLINE,
    "delivery": _DEADLINE + _WORK,
    "returns": _DEADLINE + _MONEY,
    "account": _WORK + _INTRUDER + _DEADLINE,
    "technical": _WORK + _DEADLINE + _MONEY,
    "product-info": _ELECTRICIAN + _ELECTRICIAN + _DEADLINE,
    "cancellation": _FEE + _FEE + _DEADLINE,
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
