package dropin

import (
	"cmp"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/heed-sms/heed/connector"
)

const (
	maxForm  = 64 << 10 // bytes
	maxMedia = 10       // files of one message, Twilio error 21623
	// maxAddress bounds To and From, in bytes. Numbers, short codes and service SIDs are shorter, punctuation included.
	maxAddress = 64
)

// readForm reads the body of a request. Twilio documents no other type than a URL-encoded form.
func readForm(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" || !strings.EqualFold(cmp.Or(params["charset"], "utf-8"), "utf-8") {
		return nil, failure(http.StatusUnsupportedMediaType, 20001, "The Content-Type must be application/x-www-form-urlencoded, in UTF-8")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	if err != nil {
		return nil, badRequest(20001, "The request body is incomplete or longer than 64 KB")
	}
	return parseForm(string(body))
}

// single are the parameters that have one value. A second one would leave open which is meant.
var single = []string{"To", "From", "MessagingServiceSid", "Body", "Status"}

func parseForm(body string) (url.Values, error) {
	form, err := url.ParseQuery(body)
	if err != nil {
		return nil, badRequest(20001, "The request body is not a URL-encoded form")
	}
	for _, name := range single {
		if len(form[name]) > 1 {
			return nil, badRequest(20001, "The parameter "+name+" is given more than once")
		}
	}
	return form, nil
}

// unsupported are the parameters that cannot be ignored: without them something else would be sent, or at another time,
// or the client would wait for what never comes.
var unsupported = []struct {
	name string
	err  *apiError
}{
	{"SendAt", errScheduled}, {"ScheduleType", errScheduled},
	{"StatusCallback", errCallback}, {"ApplicationSid", errCallback},
	{"ContentSid", errContent}, {"ContentVariables", errContent},
}

var (
	errScheduled = badRequest(35126, "Scheduled messages are not supported by heed: nothing was sent. Leave out SendAt and ScheduleType, and send at the time")
	errCallback  = badRequest(21609, "Status callbacks are not relayed by heed: nothing was sent. Leave out StatusCallback and ApplicationSid, and fetch the message")
	errContent   = badRequest(21655, "Content templates are not supported by heed: nothing was sent. Send the text as Body")
)

// parseSend reads the parameters of a new message, in the order in which Twilio complains about them.
func parseSend(f url.Values) (connector.Send, error) {
	to, from, service, body, media := f.Get("To"), f.Get("From"), f.Get("MessagingServiceSid"), f.Get("Body"), f["MediaUrl"]
	for _, u := range unsupported {
		if slices.ContainsFunc(f[u.name], func(v string) bool { return v != "" }) {
			return connector.Send{}, u.err
		}
	}
	var e *apiError
	switch {
	case to == "":
		e = badRequest(21604, "A 'To' phone number is required.")
	case body == "" && len(media) == 0:
		e = badRequest(21602, "Message body is required.")
	case !utf8.ValidString(to + from + body):
		e = badRequest(20001, "A parameter is not UTF-8")
	case otherChannel(to):
		e = errInvalidTo
	case utf8.RuneCountInString(body) > connector.MaxBody:
		e = badRequest(21617, "The concatenated message body exceeds the 1600 character limit")
	case len(media) > maxMedia:
		e = badRequest(21623, "Number of media files exceeds allowed limit")
	case slices.ContainsFunc(media, func(u string) bool { return !webURL(u) }):
		e = badRequest(21620, "Invalid media URL(s)")
	case service != "" && !isSID(service, "MG"):
		e = badRequest(21705, "The Messaging Service Sid is invalid.")
	case otherChannel(from):
		e = badRequest(21212, "The 'From' number is not a valid phone number, shortcode, or alphanumeric sender ID.")
	}
	if e != nil {
		return connector.Send{}, e
	}
	return connector.Send{To: to, From: cmp.Or(from, service), Body: body, MediaURLs: media}, nil
}

// otherChannel reports whether an address is none of a text message, such as "whatsapp:+1…". The number in it must not
// be texted instead.
func otherChannel(address string) bool {
	return len(address) > maxAddress || strings.Contains(address, ":")
}

// webURL reports whether a provider could fetch a URL.
func webURL(raw string) bool {
	u, err := url.Parse(raw)
	return err == nil && utf8.ValidString(raw) && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}
