package twiliofake

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
)

// sandboxRoutes are the controls, for tests and people. They need no credentials.
func (s *Server) sandboxRoutes(mux *http.ServeMux) {
	routes := []struct{ pattern, does string }{
		{"GET /sandbox", "this index"},
		{"POST /sandbox/texts", `a phone texts one of our numbers: {"from","to","body","opt_out_type"?,"media"?} → {"sid","webhook"}`},
		{"GET /sandbox/texts", "?phone=+1…: what that phone received and sent, in order"},
		{"GET /sandbox/knobs", "the present misbehaviour"},
		{"PUT /sandbox/knobs", "changes the given knobs and answers with all of them"},
	}
	index := make(map[string]string, len(routes))
	for _, r := range routes {
		index[r.pattern] = r.does
	}
	handlers := []http.HandlerFunc{
		func(w http.ResponseWriter, _ *http.Request) {
			writeJSON(w, http.StatusOK, map[string]any{"emulator": "twilio", "account_sid": s.o.AccountSID,
				"messaging_service_sid": s.service, "numbers": s.o.Numbers, "routes": index})
		},
		s.postText, s.getTexts,
		func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, s.Knobs()) },
		s.putKnobs,
	}
	for i, r := range routes {
		mux.HandleFunc(r.pattern, handlers[i])
	}
	mux.HandleFunc("/sandbox/", func(w http.ResponseWriter, _ *http.Request) {
		sandboxError(w, http.StatusNotFound, errors.New("no such route or method; GET /sandbox lists them"))
	})
}

func sandboxError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]any{"error": err.Error(), "status": status})
}

// decode reads one JSON object of at most maxBody bytes into v; unknown keys are errors.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("want one JSON object and nothing after it")
	}
	return nil
}

// plus repairs a number whose "+" was not escaped in a query, where it means a space.
func plus(number string) string {
	if strings.HasPrefix(number, " ") {
		return "+" + number[1:]
	}
	return number
}

func (s *Server) postText(w http.ResponseWriter, r *http.Request) {
	var t struct {
		From       string   `json:"from"`
		To         string   `json:"to"`
		Body       string   `json:"body"`
		OptOutType string   `json:"opt_out_type"`
		Media      []string `json:"media"`
	}
	if err := decode(w, r, &t); err != nil {
		sandboxError(w, http.StatusBadRequest, err)
		return
	}
	d, err := s.Deliver(t.From, t.To, t.Body, WithOptOutType(t.OptOutType), WithMedia(t.Media...))
	switch {
	case errors.Is(err, errFull):
		sandboxError(w, http.StatusInsufficientStorage, err)
	case errors.Is(err, errClosed):
		sandboxError(w, http.StatusServiceUnavailable, err)
	case err != nil:
		sandboxError(w, http.StatusBadRequest, err)
	default:
		writeJSON(w, http.StatusCreated, map[string]any{"sid": d.SID, "webhook": d})
	}
}

func (s *Server) getTexts(w http.ResponseWriter, r *http.Request) {
	phone := plus(r.URL.Query().Get("phone"))
	if phone == "" {
		sandboxError(w, http.StatusBadRequest, errors.New("phone: missing"))
		return
	}
	writeJSON(w, http.StatusOK, s.Inbox(phone))
}

func (s *Server) putKnobs(w http.ResponseWriter, r *http.Request) {
	// Decoded while nobody else can change the knobs, so the body is read before.
	body, err := readAll(r.Body)
	if err == nil {
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		err = s.changeKnobs(func(k *Knobs) error { return decode(w, r, k) })
	}
	if err != nil {
		sandboxError(w, http.StatusBadRequest, err)
		return
	}
	writeJSON(w, http.StatusOK, s.Knobs())
}
