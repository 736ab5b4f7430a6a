"""The words and sentences of the curation benchmark's tickets: plain support English, and some German, French, Spanish.

`{noun}`, `{fault}` and the like are filled by `benchmarks/tickets.py`, which is the only caller. It holds no logic.
"""

from __future__ import annotations

SLOTS = {
    "noun": (
        "account|invoice|order|parcel|subscription|dashboard|report|router|charger|lamp|thermostat|battery|keyboard|"
        "printer|headset|monitor|camera|sensor|display|cable|adapter|speaker|tablet|phone|laptop|licence|voucher|"
        "contract|statement|receipt|profile|password|calendar|mailbox|folder|backup|export|template|workspace|"
        "integration|plugin|firmware|application|website|checkout|basket|address|delivery|warranty|repair|refund|"
        "deposit|payment|discount|newsletter|notification|reminder|booking|ticket|seat|membership|upgrade|trial|"
        "scanner|projector|heater|kettle|vacuum|blender|drill|bicycle|helmet|jacket|mattress|wardrobe|shelf|table"
    ),
    "quality": (
        "new|old|second|first|white|black|blue|small|large|annual|monthly|shared|private|last|current|previous|wrong|"
        "missing|broken|damaged|expensive|cheap|digital|wireless|portable|premium|basic|foreign|local|official|spare"
    ),
    "fault": (
        "stopped working|does not start any more|shows a red light|makes a loud noise|loses its settings|turns "
        "itself off|asks for a code I never received|is stuck at ninety percent|crashes when I open it|looks empty|"
        "was charged twice|arrived with a crack|came without its box|is missing two parts|does not match the picture|"
        "cannot be opened|has the wrong name on it|disappeared over night|keeps sending the same message|refuses my "
        "password|is slower than before|smells burnt|drips on the floor|does not connect to the network|prints blank "
        "pages|has been on its way for too long|was cancelled without a word|still shows the old amount|ended a "
        "month early|counts every visit twice|forgets what I entered|opens the wrong page|does not accept my card"
    ),
    "wish": (
        "send me a new one|give me my money back|explain what happened|tell me when it will be repaired|change the "
        "address|cancel the whole thing|call me back|move the appointment|correct the amount|close the account|"
        "extend the deadline|forward this to a technician|check the serial number|restore the deleted files|confirm "
        "the cancellation|merge the two accounts|raise the limit|remove my data|ship it to my office|replace the "
        "faulty part|reset the device from your side|let me speak with your manager|waive the fee"
    ),
    "time": (
        "yesterday|this morning|last night|on Monday|on Tuesday|on Wednesday|on Thursday|on Friday|over the weekend|"
        "two days ago|three weeks ago|a month ago|since the last update|in the spring|before the holidays|right "
        "after lunch|during the night|at the end of the month|when the contract began|as soon as I logged in"
    ),
    "place": (
        "in the kitchen|at my office|in our branch in Leeds|at my parents' house|in the garage|on the second floor|"
        "in the app|on your website|in the shop on the corner|at the reception|in the warehouse|on my old phone|in "
        "the meeting room|at the school where I work|in the hotel|on the train"
    ),
    "person": (
        "my wife|my husband|my daughter|our accountant|a colleague|the courier|the technician|your hotline|my "
        "neighbour|our secretary|the man at the counter|my landlord|our new trainee|the driver|someone from your "
        "team|my father"
    ),
    "deed": (
        "restarted it|read the manual twice|unplugged every cable|installed it again|tried another browser|called "
        "the hotline|waited for an hour|wrote to the chat|cleared the cache|changed the battery|compared both "
        "invoices|checked my bank statement|took a photo of it|asked the neighbours|updated the software|cleaned the "
        "contacts|looked into the spam folder|measured the voltage|followed the video|reset it to factory settings"
    ),
    "feeling": (
        "annoyed|confused|patient so far|a little worried|disappointed|curious|surprised|tired of waiting|not angry|"
        "grateful for any help|at the end of my tether|in a hurry|in no hurry|new to this|usually very happy with you"
    ),
    "amount": (
        "{number} euros|{number} pounds|{number} dollars|{number} percent|{number} pieces|{number} days|{number} hours"
    ),
}

SENTENCES = (
    "The {quality} {noun} {fault} {time}.|My {noun} {fault}, and the {quality} {noun} {fault} as well.|I bought "
    "the {noun} {time} and paid {amount} for it.|{time} {person} {deed}, but the {noun} {fault} all the same.|I "
    "{deed} and {deed}, without any change.|Could you {wish} or at least {wish}?|Please {wish} before the "
    "{quality} {noun} {fault}.|{person} says that the {noun} {fault} {place}.|The {noun} stands {place} and "
    "{fault} every {number} minutes.|We use it {place} with a {quality} {noun} and a {quality} {noun}.|I am "
    "{feeling}, because the {noun} {fault} for the {number}th time.|What does it cost to {wish} when the {noun} is "
    "{number} months old?|According to your {noun} I owe you {amount}, but I count {amount}.|Your {quality} {noun} "
    "is fine; only the {noun} {fault} {time}.|If you {wish} by the {number}th, I will keep the {noun}.|The letter "
    "that came {time} speaks of {amount} and a {quality} {noun}.|{person} {deed} {time}, {place}.|Is there a way "
    "to {wish} without the {quality} {noun}?|On the {noun} it says model {number}, on the {noun} it says {number}.|"
    "I would rather {wish} than wait another {amount}.|For {amount} I expect a {noun} that does not need a "
    "{quality} {noun}.|Since {person} {deed}, the {noun} {fault} {place}.|How long does it take until you {wish}?|"
    "It worked for {amount}, then the {quality} {noun} {fault}.|I ordered {number} of the {quality} {noun} and got "
    "{number}."
)

STOCK = (
    "I have been your customer for many years.|Thank you in advance for your help.|I look forward to your answer.|"
    "Please let me know if you need anything else.|I could not find the answer on your website.|This is the second "
    "time that I write to you about this.|I attach a photo and a copy of the invoice.|You can reach me during office "
    "hours.|I hope this can be solved without much trouble.|Nobody answered the phone.|I followed all the steps in "
    "your guide.|The problem is not urgent, but it is annoying.|Please treat this as urgent.|I would appreciate a "
    "quick reply."
)

GREETINGS = (
    "Hello,|Hi,|Dear support team,|Good morning,|Good afternoon,|Dear Sir or Madam,|Hi there,|To whom it may "
    "concern,|Hello again,|Dear all,"
)

SIGNATURES = (
    "Kind regards\n{name}|Best wishes,\n{name}|Thanks\n{name}|Regards,\n{name}\n{noun} Trading Ltd\n{number} Mill "
    "Lane, Leeds|Yours sincerely\n{name}\nThis e-mail may be confidential. If you are not the intended recipient, "
    "please delete it.|Cheers, {name}\nSent from my phone"
)

NAMES = (
    "Anna Keller|Tom Baker|Maria Lopez|Ravi Patel|Julia Stein|Peter Novak|Lena Fischer|Omar Haddad|Claire Martin|"
    "Ivan Petrov|Grace Miller|Jonas Berg|Sara Rossi|Hugo Silva|Emma Clark|Noah Wright|Mei Chen|Paul Weber|Ines Costa"
)

PERSONAL = (
    "My address is {email}.|Write to {email} or to {email}.|Call me on {phone}.|My number is {phone}, after six.|The "
    "card was {card}.|My IBAN is {iban}.|The router shows {ip}.|The link was https://shop.example/{key}?id={number}.|"
    "The key in my settings is sk_live_{key}."
)

REPLIES = (
    "Thank you for your message.|We are sorry that the {noun} {fault}.|We have checked the {quality} {noun} for you.|"
    "A colleague will {wish} by the {number}th.|Please {wish} in the meantime.|The amount of {amount} is on its way "
    "to you.|You will find the {noun} under the {quality} {noun} {place}.|If the {noun} {fault} again, write to us.|"
    "We have noted that {person} {deed}.|Your {noun} is covered until month {number}.|Kind regards, your care team."
)

OTHER_LANGUAGES = {
    "de": (
        "Guten Tag, meine Bestellung ist seit {number} Tagen nicht angekommen.|Ich habe das Gerät neu gestartet, "
        "aber es funktioniert immer noch nicht.|Bitte schicken Sie mir eine neue Rechnung über {number} Euro.|Können "
        "Sie mir sagen, wann der Techniker kommt?|Leider fehlt im Paket das Kabel mit der Nummer {number}.|Ich "
        "möchte meinen Vertrag zum nächsten Monat kündigen.|Vielen Dank für Ihre schnelle Hilfe."
    ),
    "fr": (
        "Bonjour, ma commande numéro {number} n'est toujours pas arrivée.|J'ai redémarré l'appareil, mais il ne "
        "fonctionne pas.|Pouvez-vous m'envoyer une nouvelle facture de {number} euros ?|Je voudrais annuler mon "
        "abonnement à partir du mois prochain.|Il manque {number} pièces dans le carton.|Merci de me répondre "
        "rapidement."
    ),
    "es": (
        "Hola, mi pedido {number} todavía no ha llegado.|He reiniciado el aparato, pero sigue sin funcionar.|¿Pueden "
        "enviarme una factura nueva de {number} euros?|Quiero cancelar mi suscripción a partir del próximo mes.|"
        "Faltan {number} piezas en la caja.|Muchas gracias por su ayuda."
    ),
}
