package reply

// phrase is a group of patterns with one effect and one name.
type phrase struct {
	rule   string
	effect effect
	lines  []string
}

// sets are the word classes of the patterns, in normal form.
var sets = map[string]string{
	// Words that may stand around a request without changing it.
	"lead": `hi hello hey yo hiya good morning afternoon evening dear sir madam maam please pls plz plse pleas
		plesae plz kindly pretty ok okay k no nope nah nty yes and but so just thanks thank thx you u ty sorry excuse
		omg omfg wtf ffs jesus christ god lol um uh well now again seriously dude bro man guys yall hola bonjour team hallo
		ola bitte por favor svp merci gracias oh ugh alright jeez also folks nm fucking fuckin fuck damn goddamn apologies`,
	"tail": `please pls plz plse pleas thanks thank thx you u ty tysm now immediately asap already lol lmao smh ffs man bro dude
		guys sir maam forever permanently anymore again ok okay period exclamation point kthx xd haha gracias merci
		danke svp bitte por favor obrigado obrigada s il vous te plait effective right for good at once so much
		seriously really omg wtf jesus god n kthxbye bye mas mehr yall ever stop unsubscribe plait this instant ya
		asshole assholes bitch idiot idiots moron morons loser losers jerk jerks creep friend`,
	"clause": `but so please pls plz plse kindly because cause cuz since`, // a new clause begins behind them
	"filler": `please pls plz kindly just really literally immediately right now already ever fucking fuckin fkn fking f
		damn damned goddamn freaking freakin frigging bloody effing effin fing ing fn ck hell tf the a an so also actually all any further future
		more of stupid dumb annoying unwanted unsolicited constant such ass shitty bullshit crappy`,
	"det": `the a an any all these those this that your ur youre our more further future with w from of such
		so many every other about new each group text txt daily weekly political marketing promotional
		automated bulk campaign fundraising damn stupid mass additional kind sort type for da dis dat tha teh`,
	"poss":   `dis dat my our this that these his her their the your`,
	"me":     `me us`,
	"you":    `you u ya yall yous`,
	"them":   `him her them it someone somebody everyone people`,
	"person": `wife husband mom mum mother dad father son daughter kid kids child children family parents grandma grandmother grandfather brother sister mothers moms dads husbands wifes wives sons daughters fathers parents grandmas employee employees staff`,
	"phone":  `number numbers num nbr phone cell cellphone cellular mobile line device digits contact info information name email details data`,

	"cease":  `stop quit cease stahp halt discontinue desist stopping stp`,
	"cease2": `end cancel terminate kill disable deactivate suspend stop quit cease discontinue halt`,
	"talking": `texting txting txtin textin textn messaging messagin msging mssging contacting calling callin bothering bugging
		harassing spamming emailing pinging soliciting pestering stalking hassling disturbing annoying badgering
		sending sendin reaching following hitting hmu blowing selling begging asking messing notifying alerting
		mailing dming tormenting nagging`,
	"talking1": `texting txting messaging contacting spamming harassing`,
	"times":    `times twice already again and many like times so please now # over a on several multiple @talking @texts`,
	"getting":  `getting receiving gettin recieving seeing`,
	"talk":     `text txt texts txts message msg contact bother disturb spam sms pester harass solicit notify dm hmu ping annoy messages`,
	"talk2":    `call email phone ring write mail reply`,
	"mail": `text texts txt txts message messages msg msgs messges sms mms textmessages communication communications
		correspondence notification notifications notices alert alerts spam promos promo promotions promotion ads ad adds
		advertisement advertisements advertising marketing solicitation solicitations solicitating coupons offers
		reminders newsletters crap shit stuff bs junk garbage nonsense spams blasts updates surveys deals contact
		political campaigns`,
	"texts":  `harassment text texts txt txts message messages msg msgs sms mms spam alerts notifications promos ads marketing contact communication communications promotions messaging texting offers solicitations`,
	"texts2": `texts txts sms mms spam ads marketing promotions texting solicitations offers`,
	"list":   `list lists database databases system systems mailing mailings records subscription call contacts texts messages campaign thing file files directory group groups chat text texting distribution lista chain thread everything all`,
	"remove": `remove delete erase exclude unlist unregister deregister unenroll rmv rmve remov remve purge unenrol unsubscribe unsub omit`,
	"take":   `tk tke take get drop scratch strike pull remove delete cross keep want wanted`,
	"unsub":  `unscribe unsuscribe unsubscrive unsubsribe unsubcribe unsubscribe unsub unsubscribing unsubscribed unsubscription unsubscribes unsubs`,
	"swear":  `the hell fuck tf f heck`,
	"say":    `say said says saying typed type texted replied wrote told tell asked sent text reply screamed replying typing texting`,
	"neg":    `dont donot dnt never not cant cannot wont doesnt didnt havent hasnt couldnt wouldnt shouldnt cannt isnt aint arent wasnt`,

	"es_send": `mandar mandarme mandarnos enviar enviarme enviarnos escribir escribirme molestar molestarme contactar contactarme llamar llamarme textear textearme mandando enviando escribiendo joder fastidiar`,
	"es_dont": `manden mande mandes envien envie envies escriban escriba escribas contacten contacte contactes llamen llame llames molesten moleste molestes texteen textee mandar enviar escribir molestar`,
	"es_mail": `mensaje mensajes texto textos sms publicidad promociones propaganda avisos notificaciones anuncios msj msjs`,
	"es_off":  `quite quiten quita quitenme quiteme quitame saquen saque saca saquenme saqueme sacame borren borre borra borrar borrenme borreme borrame elimine eliminen elimina eliminar eliminenme elimineme eliminame remueva remuevan`,
	"es_me":   `quitenme quiteme quitame saquenme saqueme sacame borrenme borreme borrame eliminenme elimineme eliminame`,
	"fr_mail": `message messages sms texto textos pub pubs publicite publicites notification notifications spam spams textes mails`,
	"fr_off":  `retirez retire retirer enlevez enleve enlever supprimez supprime supprimer effacez efface effacer rayez otez desinscrivez`,
	"pt_send": `mandar enviar ligar escrever perturbar encher mandando enviando incomodar`,
	"pt_dont": `mande mandem manda envie enviem envia ligue liguem contate contatem escreva escrevam perturbe perturbem incomode incomodem`,
	"pt_mail": `mensagem mensagens sms msg msgs propaganda propagandas torpedo torpedos promocao promocoes notificacoes`,
	"pt_list": `lista listas grupo cadastro base sistema`,
	"pt_off":  `remova removam remover retire retirem tire tirem tira apague apaguem apagar exclua excluam excluir delete descadastre descadastrem`,
	"de_mail": `sms nachricht nachrichten werbung texte mitteilungen mails anrufe infos newsletter`,
	"de_dont": `kontaktieren schreiben anschreiben senden schicken kontaktiert schreibt schickt schreib schick kontaktiere texten anrufen zusenden belastigen nerven`,

	// Behind these a final "stop" is a place, or not asked of us.
	"leftnoun": `the a an my your our his her their this that each every which next last one first second bus train truck pit
		full rest short quick non subway to did does do will would can could should must shall may might it he she they we i
		ill id never ever wont dont cant didnt doesnt not at near another two three main un start rain bleeding pain pls
		lets and or of for by stop door them noise it tram metro school your final whistle`,

	// What people stop, cancel and remove that is not this conversation.
	"elsewhere": `by in at over through into on near off`,
	"time":      `at after before until till til during while when past late between on tonight tomorrow early`,
}

var macros = map[string][]string{
	"dont":   {"!dont|donot|dnt|never|dnot", "do !not|nt", "dont !ever", "don !t"},
	"nowant": {"dont|doesnt|didnt|never|not|nor|dnt|donot|nobody|noone", "do|does|did not", "no longer", "no"},
}

// phrases are tried in the order of the table at each word; the strongest effect wins, see effect.
var phrases = []phrase{
	{"negation", shield, []string{
		"@neg !stop|quit|end|cease|stopping|stopped|unsubscribe|unsub|unsubscribed|remove|removed|delete|cancel|drop|opt",
		"@neg take|get me|us off",
		"@neg want|wanna|need|wish|like|going|trying|gonna to? be? get? !stop|unsubscribe|unsub|unsubscribed|removed|opt|cancel|quit|end|taken",
		"@neg mean|meant|say|said|ask|asked|request|requested|tell|told|text|type|reply|send|want you|u|to|be|for|get|me|us|text|say|send|type|hit|reply|the|word* !stop|removed|unsubscribe|unsubscribed|opt|off",
		"no need to? !stop|cancel|remove|quit",
		"wrong !number of|for|on",
		"no dejen|dejes|deje|deja|paren|pares|me|quiten|cancelar|quiero|quite|den|de|cancelen* !dejen|quiten|quite|cancelar|baja|paren|de|cancelen",
		"ne me|nous? !desabonnez|desinscrivez|retirez|arretez pas?",
		"n !arretez pas",
		"nicht !abmelden|stoppen|aufhoren|loschen",
	}},
	{"negation", insist, []string{
		"if you|u|yall dont|do not? !stop|quit|cease",
		"you|u|yall wont|dont|never|cant|still|havent|didnt !stop|stopped|quit @talking",
	}},
	{"other_topic", shield, []string{
		"why|when did|have|has|was|were|do|does|is you|u|i|the|we|my|your|texts|messages* !stop|stopped|removed|unsubscribed|remove|unsubscribe",
		"did|have|has|are|does you|u|they|we|i ever? !stop|stopped|quit|stopping|cancel|remove",
		"ill|i will|we will|shell|hell|theyll !stop|quit|cancel|end",
		"told|tell|asked|ask|make|makes|made|have|had|let|lets|help|want|need me|us|him|her|kids|driver|drivers|everyone to? !stop|quit|end",
		"accidentally|mistakenly|accident|mistake _? _? !stop|unsubscribe|unsubscribed|removed|unsub",
		"!stop|unsubscribe|unsub|unsubscribed by accident|mistake",
		"the !unsubscribe|stop|cancel|end link|button|key|option|page|sign",
		"@unsub from|to @det* -@list|@mail|@det|@tail|@me|you|u|here|number|phone",
		"opt|opting|opted out of @det* -@list|@mail|@det|@tail|@me|you|u|here|number|phone|contact|receiving|getting|being",
		"remove|take|get|drop|delete me|us|my|him|her|name|off|of|from|out* the|this|your|a|tomorrows|todays|my|that|@det* _? class|carpool|shift|shifts|slot|schedule|roster|waitlist|appointment|team|game|trip|speaker|calendar|waiting|reservation|booking|order|account|property|exit|corner|bus|am|pm|meeting|rota|table|party|flight|loan|lease|policy|will|show",
		"text|texts and !drive|driving",
		"do !not disturb while|mode|turned|sign|is|on|was",
		"^ keep !texting|sending|messaging",
		"drop me off",
		"!text|message|call me when|once|if|the|a|your|my|at|on|back|later|tomorrow|instead|asap",
		"{dont} text|txt|message|contact @them",
		"you|they|he|she|we|nobody|i !never @talk|@talk2",
		"{dont} @talk @me the|a|about|if|unless",
		"{dont} send a",
		"kann|konnen|konnte|darf ich? nicht !mehr", "kann|konnen|konnte|darf ich? !nicht mehr",
		"no !me @es_dont la|el|una|un|las|los -@es_mail",
		"i !dont|do not? text|txt|message|sms",
		"i|we|they|he|she do !not text|txt|message|sms",
	}},
	{"quoted", scope, []string{
		"^^ reply|text|txt|send|with|responda|repondez @det? !stop|end|quit|cancel|unsubscribe|arret to|2|for|pour|para _? _? $$",
		"what|if|does|happens i|does|if|you|u|happens* reply|text|texting|send|say|type|replying !stop",
	}},
	{"quoted", shield, []string{
		"reply|text|txt|send|respond with? !stop|end|quit|cancel|unsubscribe|arret to|2|for _? _?",
	}},
	{"scoped", scope, []string{
		"^ !stop #|#a $",
		"^ !stop|pause for now|today|awhile|tonight",
		"^ !stop until|till|til _",
		"{dont} @talk|call me|us|here? @time",
		"{dont} @talk|call @time _",
		"{dont} @talk me|us? this|so|that late|early",
		"^^ !stop start|unstop $$",
		"^^ !start stop $$",
		"^^ un stop $$",
	}},
	{"complement", shield, []string{
		"!stop|stopping|stopped @elsewhere -once",
		"!stop sign|light|lights|work|payment|payments|loss|watch|motion|gap|by|worrying|lying|playing|along",
		"!stop and go|shop|smell|see|look|think|chat|talk|say|visit|eat|get|pick|grab|buy",
		"the|a|my|bus|next|last|one|full|pit|rest|truck|non|quick|first|each|every|which|final|your|emergency|subway|train|door|short|two|another|un !stop|stops",
		"!end of|table|tables|unit|date|user|zone|goal|result|up|times",
		"the|dead|deep|week|weeks|year|years|high|low|front|back|other !end",
		"!cancel my|the|our|this -@texts|@det|@me|everything|number|phone|subscription", "!cancel today|tomorrow|appt|appointment|order|reservation|yoga|class|and|for|monday|tuesday|wednesday|thursday|friday|saturday|sunday|ride|trip|flight|it|button|fee",
	}},

	{"phrase", opts, []string{
		// stop, with nothing else
		"^ !stop|stp|stahp|stopp|arret|arretez|unsubscribe|stopall|alto|parem|ferma|zatrzymaj|remove|remov|remve|rmv|rmve|unregister|deregister|unenroll|unlist|revoke|halt|terminate|cease|discontinue|desist|baja|pare|paren|detener|sair $",
		"interested|number|person|voted|donating|spam|scam !stop $$",
		"^ !stop|quit @cease $",
		"^^ !stop i|im|ive|id|idk|we|not|no|or|sorry|wrong|never|already|dont|nope|thank|u|youre|who|why|do|spam|unsubscribe|remove|leave|he|she|have|god|bothering|seriously",
		"^^ !stop this|these is|are|isnt",
		"^ !stop @you _? $",
		"^ !stop and desist",
		"^ !stop|quit it now|immediately|asap|right|already|texting $",
		"!cease and|n desist",
		"^ reply|text|txt|say|type|send !stop|unsubscribe|end|quit $$",
		"^^ !stop|end to|2 end|stop|quit|cancel|unsubscribe|opt|optout|out|leave out? $$",
		"^ !stop this|these|those|that|all|everything|with|at|for|effective this|these|once|ever|good|real|immediately? $",
		"can|could|would|will|cant|wont|may|might|should @you not? !stop|quit $",
		"@you need|have|must|should|gotta|better|ought|can|could|may|might to? !stop|quit $",
		"@you need|have|must|should|gotta|better|ought|can|could|may|might to? !stop|quit now|already|these|this",
		"i|ive|have|weve|just|already|we|keep|answer|reply @say @you|to|it|this|that|again|be|no|#|times|twice|before|repeatedly* !stop|unsubscribe|stopp @times|$", "who is|are|r this|you|u|these !stop $$", "^ told|asked|said|replied|texted|typed @you|to|it|this|that|again|be|no* !stop|unsubscribe @times|$",
		"i|ive|have|weve|just|already|we @say|requested to be|get !removed|unsubscribed|taken",
		"@say !stop $",
		"times|time i|do|to|have|must|we|ive|did|need* @say|ask @you? to? !stop|removed",
		"want|need|like|wish|request|requesting|demand|demanding|insist @you|that* to? !stop|cease|quit @talking1", "want|need|like|request|demand @you to !stop|cease|quit @talking|$",
		"part of !stop",
		"^^ how to|do|can|i|you* !stop $$", "how|can|could|way i|we|do|can|to|does|would|one* !stop @getting|receiving",
		"these|those|the|your|this|all @mail @mail? to !stop",
		"been|was told|asked to !stop",
		"these|this|those|that it? need|needs|has|have|gotta|must to? !stop $", "these|those to !stop $",
		"!refrain from @talking", "{dont} be|keep @talking1", "not|never|longer allowed|permitted|authorized|supposed to !@talk|call @me|this|here", "may|must|cannot|cant not? !@talk @me|this", "^ !stop today|tonight $",
		"make|makes|making this|these|those|@mail @mail? !stop", "^^ make it !stop $$",
		"please make them !stop",
		"when|will will|do these|those|your|the|this @mail? @mail !stop",
		"i|id|would|want|like|just|to|please* want|like|wish !stop @det* @mail",
		"if|that|appreciate @you would? !stop|stopped|quit @talking",

		// stop texting
		"!@cease @talking",
		"!@cease @getting @det* @mail|these|this",
		"!@cease being? contacted",
		"!@cease with|w|it|that|@talk* @det* @mail",
		"!@cease @det* @texts",
		"!@cease @det* calls|calling|emails|emailing|call and|or|n @texts|@talking",
		"!@cease @talk @me|this|my",
		"^ !@cease ...ing @me", "!@cease wasting|using my", "!@cease trying to buy|contact|reach|sell|get|text|call",
		"!@cease2 @det* @texts",
		"!@cease2 my|the|this|your|all? subscription to @det* @list|@texts",
		"turn|shut|switch|cut !off @det* @texts|reminders|alerts|notifications",
		"turn|shut|switch|cut @det* @texts|reminders|alerts|notifications !off",
		"@mail !off please|pls|now",

		// do not text
		"{dont} @talk @me|@phone|again|anymore|here|this|dis|that|these", "{dont} @talk my|our|his|her|the @person|@phone",
		"{dont} @talk $$",
		"not to !@talk @me|this|anymore|again",
		"^^ {dont} send anymore|again|more* $$",
		"{dont} call|ring|dial this|my number|phone|line",
		"no longer !@talk @me",
		"not to? be !texted|messaged|contacted|called",
		"!never want|wanna to? hear from @you",
		"{dont} want|wanna|need to? hear from @you",
		"{dont} @talk2|@talk or|and|nor @talk|@talk2",
		"{dont} @talk2 @me|@phone|this|my* again|anymore|ever|nomore|no",
		"^^ {dont} call $$",
		"{dont} @talk2|@talk list|registry",
		"{dont} reach|hit out|up|@me* $",
		"{dont} reach out",
		"{dont} use this|my number|phone",
		"{dont} send|sending|mail|forward @me|this|to|out|phone|number* @det* @mail|anything|nothing", "{dont} send|sending @me|any|out|to* these|this|those|more anymore|again? $",
		"{dont} send|sending me|us $",
		"{dont} text|message back again?",
		"{dont} reply to? me",
		"@talk|call @me again and? ill|i|im|you|we and|ill|will|am|im|gonna? !sue|report|call|block|press",
		"!if you|u|i|anyone|yall @talk|call|get @me|another|one again|text|message|more",
		"one|another|1 !more|another text|message|txt|msg and|or|im|ill",
		"no need to !@talk|contact|call @me|this",
		"never again !@talk @me",
		"^ go !bother|text|annoy|spam|harass someone|somebody|anyone",
		"find someone|somebody else to !spam|bother|text|annoy|harass",

		// no more texts
		"no more !texting|messaging|calling|contacting", "no|zero right|authorization|permission|reason|business to !@talk|call @me|this", "!revoke all|everything|@texts|it|this", "!no more|further calls|emails|calling|calls and|or|n @texts|texting", "!no more|mor|moar|further|additional @det* @mail|txts|emails",
		"^ !no text|txt messages|msgs $", "!nomore @det* @mail", "^ !nomore $", "^ !no more of? these|this|those|it? $",
		"^^ no !contact|communication please|pls|thanks $$", "^ !no @det* @texts2 $",
		"!no @texts please|pls|thanks|email|emails|ever|only",
		"^ !not another text|message|txt",
		"!not by text",
		"!enough with|of @det* @mail",
		"!knock|cut|lay it? off|out with? @det* @mail",
		"{nowant} want|wants|wanna|need|needs|wish|wishes|desire|care|like|wanting|authorize to|receive|get|see|have|be|for|recieve* @det* @mail",
		"{nowant} want|need|wish|desire|care|like|wanna to? receive|recieve any|these|them|this|anything|from|more|it", "{nowant} want|need|wish|wanna to? get|see these|any|more these|more|of|anymore|@mail|$", "{dont} do|accept @det* @texts",
		"{nowant} want|wish|like|need|wanna to? be|get texted|contacted|messaged|bothered|spammed|called|emailed|disturbed|subscribed|notified|on",
		"^ i? {nowant} want|need|wants these anymore|any|more|please* $",
		"!rather|prefer|want|like|wish|asked|preference|request to|is|that|you* not|no to|be|get|receive|being|getting|receive* @det* @texts|contacted|texted|receive",
		"not|longer|never|aint interested in !@getting|these @det* @mail|these|$",
		"longer interested in? @getting|these",

		// take me off
		"!@remove @me $",
		"!@remove @me from|frm|form|fom|off|of|out @det* @list|@mail|here|this|these|it|your|all|future",
		"!@remove @poss|@person|from|all|of|and|name* @phone",
		"!@remove @phone|number|contact $", "^ !lose|forget @poss* @phone|#",
		"!@remove @me asap|now|at|immediately|today|i|im|or|and|you|before|right|not|this|my",
		"!@remove from|off|of @det* @list",
		"!@remove #7", "!@remove # #",
		"!take|get|want|drop|pull @me|my|this|@phone|@person|him|her|them|#7 @me|my|this|@phone|@person|him|her|them|#|#a|taken|removed* off|from|of|out $",
		"be|get|been !taken|removed|dropped|pulled off", "take|get !off my|this name|number|phone|cell",
		"!take|get|want|drop|scratch|strike|pull|cross|withdraw|be|removed|like @me|@poss|@phone|@person|him|her|them|#|#a|taken|removed|to* off|from|of @det* @list|here|this|thing",
		"!off your|ur|this|youre @det* @list", "^ want? !off the @det* @list $",
		"take it !off $$",
		"i want !out|off $",
		"me|us|number|phone|name|info !removed|unsubscribed|deleted|unsubbed|deregistered", "be|get|been|being !removed|deleted|taken from|off|of @det* @list|here|this", "^ i|id|we|ive|would|like|want|wish|need|asked|request|requested|may|can|do|how|get|to|please|be|have* be|get !removed|unsubscribed|unsubbed $", "been !unsubscribed",
		"want|like|wish|request to? be? !removed|unsubscribed|deleted|taken",
		"get me !out of this|your @list",
		"these|those|the|your @mail need|needs|has|have|gotta to !stop", "!take|get|scratch|strike|cross my|this|me @phone|and|my|this|me* off $", "!take|get|remove|keep me|us|my|this @phone|number* out of @det* @list", "get rid of !my|me|us|this", "number|phone|name !gone|out from|of|off", "!removal from @det* contact|mailing|call? @list", "!out of your|ur|this @list",
		"add|put @me|@phone|@poss* to|on|in @det* do? dnc|not|no call|contact|text|list?",
		"do !not call|contact|text|solicit|disturb list|registry",
		"not call|contact|text !list|registry",
		"^ !dnc $",
		"!dnc list",

		// unsubscribe
		"!@unsub",
		"!opt|opting|opted|opts @me|us|this|my|number|him|her|@phone* out|ut",
		"!optout",
		"!opt|op out|ou|ut",
		"^ !spot|sop|step|shop|atop it? texting|txting|messaging|contacting me",
		"un !enroll|subscribe",
		"how|where|can|way to|i|do|we* !unsubscribe|unsub",

		// consent
		"!revoke|withdraw|rescind|revoking|withdrawing|retract @poss|all|any|prior* consent|permission|authorization|authorisation|approval",
		"dont|not|never|didnt|doesnt have|give|gave|given @you|my|any|a|the|to|have* !permission|consent|authorization to? text|contact|message|call|sms|$", "not|never|didnt|dont consent|consented|agree|agreed|authorize|authorized to|you|be|get|receive|receiving|getting|this|these|your|any* !@texts|texted",
		"{dont} consent",
		"no|zero !consent $",
		"!consent|permission revoked|withdrawn|denied|rescinded|cancelled",
		"take back my !consent|permission",

		// go away
		"!leave @me|my|@person|@phone|this|number* @swear* alone|alon",
		"!leav|leve|leev @me alone|alon",
		"^ !go|get away|lost|bent $",
		"^^ !leave|let @me be $$",
		"^ !gtfo",
		"!fuck|f|eff|piss off|of and|you|u",
		"!fuck|f|eff|piss|bugger|buzz|screw|sod|fk|fck off|of $",
		"^ !back off $",
		"^ !lose @poss? number",
		"^ !delete|erase me",
		"no longer want|wish|wanna to !be|receive|get contacted|texted|@det|@mail",
	}},
	{"phrase", holds, []string{
		"^ !quit|end|cancel|para|parar|fin|salir|ende|delete|enough $",
		"^^ !stop|quit|end it|that $$", "please !stop|quit it|that",
		"^ !quit it",
		"!cut|knock it out|off",
		"^ !unwanted",
		"^ !stop -@elsewhere|...ing|the|my|our|it|that|lying|worrying|work|payment|sign|and",
		"^ !stop this|these|that|those _? $",
		"^ !enough $",
		"^ thats !enough $$",
		"^ !enough is|already",
		"wrong !number|phone|num",
		"^^ you|u|have|the|got|sorry|this|is|i|think* !wrong person|guy|# $$",
		"^^ !wrong $$",
		"not|longer|zero|no|never !interested|interest $",
		"not !interested in your|these|this|any",
		"!not maria|john|her|him|me $$",
		"^^ this is|isnt !not @them|me|maria|john|who $$",
		"how|where did|do|have|d @you get|got|find|obtain !my|this number|info|contact|name|phone",
		"!never|didnt|dont sign|signed|subscribed|subscribe|ask|asked|agreed|opted|requested|request up|to|for|in|this|any|these*",
		"^ !spam|scam|scammer|scammers|spammer|spammers|harassment|unwanted|junk|reported|blocked|block|blocking|goodbye|pause $",
		"!this|these is|are spam|scam|harassment|unwanted|junk|illegal|annoying",
		"@you are|re? !harassing|spamming|bothering|violating",
		"youre !harassing|spamming|bothering|violating|blocked",
		"blocked|blocking|block|reported|reporting|report|sue|suing @you|this|and|your|u|as",
		"ive|i|have|youve|will been? !blocked|reported|block|report",
		"!calling|contacting|call my lawyer|attorney|the police|fcc|ftc|cops",
		"!tcpa|fcc|ftc",
		"!passed away",
		"he|she|person|husband|wife|mother|father|mom|dad is|has? !died|deceased|dead",
		"!too many|much @texts",
		"text|texting @me? !too|so much",
		"!hate|sick|tired|over|annoyed of|by|with|your|these|the|those|this|getting|and|is|are* @texts",
		"why|still|keep|keeps do|are|@you|keep|still|u* !texting|messaging|contacting|sending|calling @me",
		"!fuck|screw|fk|fck|damn you|u|yall $",
		"no no !no",
		"^ !hell no $",
		"absolutely !not $$", "i said|told you? !no|not $$",
		"!no longer works|work|live|lives|at",
		"doesnt|dont|not !work|live|working here|anymore",
		"^ !remove|cancel|delete|unenroll|drop @me|it|everything $", "but|and !remove|delete it $",
		"!remove|delete @me from|off|of", "take @me !off|from of? this|that|your|ur",
		"!@take _? _? off of? your|ur|this",
		"!pause @det* @texts",
		"!respect my",
		"do not call !registry",
		"!cancel|end my? subscription|account|everything|texts $",
		"^ !dont|never $",
		"^^ {dont} call @me $$",
		"^ i? {nowant} want this|it $",
		"^ !get out $",
		"^^ !shut up $$", "no !messages $", "!done with|w these|your|the|this|ur @mail|list",
		"!@cease _* @talking1|@texts", "!remove|delete|unlist|erase _* list|lists|number|database|system",
		"^ !@remove @me", "{dont} _? _? @talk @me", "@talk|call @me !again and|ill|i|im", "@talk|bother|annoy someone|somebody !else", "get it !off $$", "and !stop $$", "is !stop $$", "^ !block my|this number", "!give it a? rest", "still !getting|receiving|gettin @det* @texts", "consider me !removed|unsubscribed|out",
		"-@leftnoun !stop $$",
		"^ !remove|delete|lose|erase my|this|both|these|all $", "!remove|delete both|all @phone",
		"^ !withdraw|withdrawn|removed|revoked|scram $", "!withdraw @poss? @phone",
		"^ !deactivate|suspend|disable|mute|block|cancel me|my|this number|phone|$",
		"turn these|this|it|them !off $", "not on your|this !list", "^ !off list|$",
		"get|stay|keep out|off|away of|from? !my|me phone|$",
		"^ not !wanted|welcome $", "wrong|person|number|you !remove $", "de !list me",
		"!get the|a|@me hint|away from|life?",
		"!take a hint",
	}},

	// Spanish
	{"phrase", opts, []string{
		"!deje|dejen|deja|dejenme|dejeme|pare|paren|cese|cesen|basta de|ya|por|favor* @es_send", "!para|dejar de @es_send",
		"!deje|dejen|deja de|@me|estar* @es_send", "no me|nos? !vuelvan|vuelva|vuelvas a @es_send", "^^ !cancelar|anular suscripcion|inscripcion $$",
		"no|nunca ya|mas? !me|nos @es_dont",
		"favor|favor|no de? !no @es_dont @es_mail|mas|nada|este|a",
		"!no @es_dont mas|@es_mail",
		"no quiero|deseo|queremos !recibir nada|mas|esto|eso|estos|sus|ningun|ninguna", "!no quiero|deseo|quisiera|queremos|necesito|quiere recibir|que|mas|sus|sus|estos|los|ningun|ver|me|de|tus|ya|recibiendo|obtener* @es_mail",
		"ya !no quiero recibir|mas|nada",
		"!no mas @es_mail|spam|text|texts|messages",
		"^ !no mas $",
		"!basta ya? de @es_mail",
		"!dar|darme|darse|dame|deme|denme|den|dennos|darnos|doy|demen|dar|quiero|solicito|pido|la|una de|la|mi !baja",
		"!@es_me de|ya|$",
		"!@es_off me|mi|este|de|a|el|la|su|tu|ese* numero|lista|telefono|nombre|base",
		"!dejenme|dejame|dejeme|dejennos en? paz|tranquilo|tranquila",
		"!detener|detengan|detenga|cancelar|cancele|cancelen|parar|paren|pare|anular|anulen|stop|alto|eliminar|suspender|suspendan los|las|a|la|mi|estos|sus|de|esta* @es_mail",
		"!desuscribir|desuscribirme|desuscribirse|desuscribanme|desuscribame|desinscribirme|desinscribir",
	}},
	{"phrase", holds, []string{
		"!numero equivocado|incorrecto", "no me !interesa", "no estoy|estamos !interesado|interesada|interesados",
		"ya? !basta $$", "^ !basta|dejame|dejenme $$", "!equivocado|equivocada",
		"no es mi !numero", "!cancelar|anular mi|la suscripcion|inscripcion|assinatura|inscricao",
	}},
	// French
	{"phrase", opts, []string{
		"!arretez|arrete|cessez|cesse|arreter|stop|cesser de|d m|me|nous|n|l _",
		"!arretez|arrete|cessez|cesse|arreter|stop|arret les|ces|vos|des|aux|au|la|tous|l|de|d|envoi|ce* @fr_mail",
		"^ !arretez|arrete|arret|cessez $",
		"!desabonner|desabonnez|desabonne|desabonnement|desinscrire|desinscription|desinscrivez|desabo|desinscris",
		"!plus|aucun de|vos|d|ces|recevoir|des|aucun|les|aucune* @fr_mail", "pas|jamais !recevoir de|vos|ces|d|des|les* @fr_mail",
		"ne veux|souhaite|desire|voudrais|veut !plus recevoir|rien|etre", "ne !plus recevoir|etre", "ne !plus me|nous|m contacter|envoyer|ecrire|appeler|texter",
		"ne|n m|me|nous|le !envoyez|contactez|textez|ecrivez|appelez|envoie|contacte|ecris|texte|derangez|harcelez|envoyer|contacter plus|rien|jamais|$",
		"!m|me|nous envoyez|contactez|textez|ecrivez|appelez|derangez plus|jamais",
		"!@fr_off moi|nous de|des|d|$",
		"me|m !retirer|enlever|supprimer|desinscrire de|des|la|votre* liste|listes",
		"!@fr_off mon|le|ce|notre|mes nom|numero|num|coordonnees|donnees",
		"!laissez|laisse|fichez|foutez|foutre moi|nous tranquille|tranquilles|paix|la",
	}},
	{"phrase", holds, []string{
		"pas|plus !interesse|interessee|interesses", "!mauvais|faux|erreur numero|de", "!ca suffit",
	}},
	// Portuguese
	{"phrase", opts, []string{
		"!pare|parem|parar|chega de|me|por|favor|ficar|com|as|essas* @pt_send|@pt_mail", "!para|deixe|deixem de me|ficar* @pt_send",
		"nao|nunca|ja|favor !me|nos @pt_dont",
		"nao quero|desejo|queremos mais? !receber isso|isto|nada|mais|essas|esses|estas", "!nao @pt_dont mais|@pt_mail|nada|me",
		"!nao quero|desejo|queremos|gostaria mais|receber|de|suas|ter|nenhuma|essas|as|estas|me* @pt_mail|nada",
		"!nao entre|entrem mais|em* contato",
		"!@pt_off me|o|meu|este|esse|da|do|de|a|sua* numero|lista|telefone|nome|contato|cadastro",
		"me !remova|removam|descadastre|descadastrem|exclua|excluam|apague", "me !tire|tira|tirem|retire|retirem da|de|desta|dessa @pt_list",
		"quero|queremos|desejo|gostaria de? !sair da|desta|dessa|$",
		"me|nos !deixe|deixem|deixa em paz",
		"!chega de @pt_mail",
		"!cancelar|cancele|cancelem|parar as|os|minhas|de|essas|meu|minha* @pt_mail",
		"!descadastrar|descadastre|descadastrem",
	}},
	{"phrase", holds, []string{
		"!numero errado", "nao tenho !interesse", "nao estou !interessado|interessada", "^ !chega $$",
	}},
	// German
	{"phrase", opts, []string{
		"!keine|kein|nie weitere|weiteren|mehr|solche|ihre|eure|der|deine|bitte|wieder* @de_mail mehr|bitte|senden|schicken", "^ !keine sms|werbung $",
		"!keine weiteren|weitere @de_mail",
		"!hort|horen|hor|hore|hoert|hoeren|hoer sie|mal|bitte|doch* auf mir|mich|uns|damit|$",
		"!@de_dont sie|ihr|bitte|mir|mich|uns* nicht|nie|keine|nichts mehr|wieder|@de_mail|$",
		"!nicht mehr|wieder|weiter @de_dont",
		"!lasst|lassen|lass sie|mich|uns|bitte* in ruhe|frieden",
		"!losche|loschen|loscht|loesche|loeschen|loescht|entfernen|entfernt|streichen|streicht|streich|nehmen|nehmt sie|mich|bitte|meine|diese|uns|von|aus|vom|der|ihrer|eurer* nummer|handynummer|liste|verteiler",
		"nummer|handynummer bitte? !loschen|loeschen|entfernen|streichen", "meine|diese nummer|handynummer|daten bitte|aus|der|liste|sofort* !loschen|loeschen|entfernen|streichen",
		"von|aus|vom der|ihrer|eurer|dem? liste|verteiler !streichen|loschen|nehmen|entfernen",
		"!melden|meldet|meld sie|mich|uns|bitte* ab",
		"mich|uns|bitte|sms|newsletter !abmelden|austragen $", "!abbestellen",
		"^ !stoppen|stoppt sie|bitte|die|das|diese* @de_mail|$",
	}},
	{"phrase", holds, []string{
		"!kein|keinerlei interesse", "!falsche|falsch nummer|verbunden", "!es reicht",
	}},
	// Italian, Dutch, Polish, Russian
	{"phrase", opts, []string{
		"!basta|stop messaggi|messaggio|sms", "basta con i|gli? !messaggi|sms", "!stop met de? sms|berichten|appen",
		"!non mi|ci? mandate|scrivete|contattate|inviate|mandare|scrivere|contattare|inviare|chiamate",
		"!non voglio piu|ricevere messaggi|ricevere|sms|piu",
		"!cancellatemi|disiscrivetemi|toglietemi|rimuovetemi|cancellami|disiscrivimi",
		"!geen berichten|sms|smsjes|reclame meer",
		"!haal|verwijder mij|me|mijn|ons van|uit|nummer",
		"!nie pisz|piszcie|wysylaj|wysylajcie|dzwoncie",
		"!не пишите|присылайте|звоните|пиши|шлите|отправляите|беспокоите",
		"!удалите|отпишите меня|мои|номер",
		"!отписаться|отпишите|отпишись",
	}},
}

// ordinary are frequent words that no typo rule may read as a keyword.
const ordinary = `step steps stoop shop shops top tops spot spots send and ends slop strop stomp stock store stow sop swop
	stops stopped stopper atop soup pots opts post posts bend lend mend tend spend quite quiet quid quip quilt quits suit unit quick quiz
	cancer cancels cancelled canceled cancun canal candle remote removed removes removal removing move moved
	rename revoked provoke evoke invoke subscribe subscribed subscriber subscribers subscription subscriptions describe
	subscribes resubscribe start started starts unstop unstoppable nonstop bestow story stood store strap stool stoic
	texted test tests testing tested nest rest best next taxes taxis test tent tester massage massages passages
	sending spending lending ending mending tending bending contact contract contracts contracting
	lists last lost least lift live love leave leaves number numbers lumber member cumber chamber delete deleted
	falling filling billing killing rolling anmelden anmeldung melden ummelden qui quoi sto eend
	tent next rent sent dent exit tex alone along clone stopping phone please pleased pleas lease release plead plate place palace peace piece
	optional option options output layout detective detention determine terminated
	terminal determinate unsure unsubstantial unscramble uncle arrest arrested arrests carrot parrot arrive ferret`
