package dropin

import (
	"cmp"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/heed-sms/heed/connector"
	"github.com/heed-sms/heed/connector/ledger"
)

const (
	maxForm  = 64 << 10 // bytes
	maxMedia = 10       // files of one message, Twilio error 21623
	// maxAddress bounds To and From, in bytes. Numbers, short codes and service SIDs are shorter, punctuation included.
	maxAddress  = 64
	maxCallback = 2048 // bytes of a callback's URL
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
var single = []string{"To", "From", "MessagingServiceSid", "Body", "Status", "StatusCallback", "SendAt", "ScheduleType"}

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
	{"ApplicationSid", errApplication},
	{"ContentSid", errContent}, {"ContentVariables", errContent},
}

var (
	errApplication = badRequest(21609, "heed has no applications: nothing was sent. Leave out ApplicationSid, and give StatusCallback")
	errContent     = badRequest(21655, "Content templates are not supported by heed: nothing was sent. Send the text as Body")
)

// How far ahead a message may be scheduled, at the least and at the most: Twilio's error 35111.
const (
	soonest = 5 * time.Minute
	latest  = 35 * 24 * time.Hour
)

// parseTime reads when a message is to be sent, the zero time for now.
func parseTime(f url.Values, now time.Time) (time.Time, *apiError) {
	at, kind := f.Get("SendAt"), f.Get("ScheduleType")
	if at == "" && kind == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, at)
	switch ahead := t.Sub(now); {
	case kind != "fixed" || err != nil:
		return t, badRequest(35114, "SendAt and ScheduleType=fixed are required together; SendAt is ISO 8601, such as 2026-11-30T20:36:27Z")
	case ahead < soonest || ahead > latest:
		return t, badRequest(35111, "SendAt must be between 300 seconds and 35 days in the future")
	}
	return t.UTC(), nil
}

// parseSend reads the parameters of a new message, in the order in which Twilio complains about them.
func parseSend(f url.Values, now time.Time) (connector.Send, error) {
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
	at, late := parseTime(f, now)
	if e = cmp.Or(e, late); e != nil {
		return connector.Send{}, e
	}
	s := connector.Send{To: to, From: cmp.Or(from, service), Body: body, MediaURLs: media, SendAt: at}
	if cb := f.Get("StatusCallback"); cb != "" {
		// The part behind # is for whoever calls: Twilio's connection overrides, which heed does not have.
		bare, _, _ := strings.Cut(cb, "#")
		if len(bare) > maxCallback || !webURL(bare) {
			return connector.Send{}, badRequest(21609, "The 'StatusCallback' URL is not a valid URL.")
		}
		s.Callback = &ledger.Callback{URL: bare}
	}
	return s, nil
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
