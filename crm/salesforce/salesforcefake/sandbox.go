package salesforcefake

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// sandbox answers /sandbox/: the emulator's own controls, without authentication.
func (o *Org) sandbox(w http.ResponseWriter, r *http.Request) {
	fail := func(status int, err error) {
		writeJSON(w, status, map[string]string{"error": err.Error()})
	}
	switch what := strings.Trim(strings.TrimPrefix(r.URL.Path, "/sandbox"), "/"); what + " " + r.Method {
	case "knobs GET":
		writeJSON(w, http.StatusOK, o.Knobs())
	case "knobs PUT":
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8<<20))
		if err == nil {
			err = o.setKnobs(func(k *Knobs) error {
				var named map[string]json.RawMessage
				_ = json.Unmarshal(body, &named) // what is wrong with it, strict says
				for key := range named {         // decoding would leave old values in the elements of a list
					switch key {
					case "validation_rules":
						k.ValidationRules = nil
					case "triggers":
						k.Triggers = nil
					case "user_access":
						k.UserAccess = nil
					}
				}
				return strict(bytes.NewReader(body), k)
			})
		}
		if err != nil {
			fail(http.StatusBadRequest, fmt.Errorf("knobs: %w", err))
			return
		}
		writeJSON(w, http.StatusOK, o.Knobs())
	case "counters GET":
		writeJSON(w, http.StatusOK, o.Counters())
	case "counters DELETE":
		o.counters.reset()
		w.WriteHeader(http.StatusNoContent)
	default:
		do := actions[what]
		if do == nil || r.Method != http.MethodPost {
			fail(http.StatusNotFound, fmt.Errorf("the sandbox has GET|PUT /sandbox/knobs, GET|DELETE /sandbox/counters and POST "+
				"/sandbox/merge, /convert, /delete, /undelete, /erase and /update"))
			return
		}
		out, err := do(o, http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			fail(http.StatusBadRequest, err)
			return
		}
		if out == nil {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		writeJSON(w, http.StatusOK, out)
	}
}

func strict(body io.Reader, into any) error {
	d := json.NewDecoder(body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if d.More() {
		return fmt.Errorf("one JSON object is expected")
	}
	return nil
}

// record names a record, and who acts on it: a username or id, "" for the administrator.
type actionRecord struct {
	Object string `json:"object"`
	ID     string `json:"id"`
	User   string `json:"user"`
}

// actions are what a person does in the browser and the REST API has no call for. They answer what they made, or nothing.
// Locks, triggers, validation rules and permissions do not apply to them.
var actions = map[string]func(*Org, io.Reader) (any, error){
	"merge": func(o *Org, body io.Reader) (any, error) {
		var in struct {
			Object   string         `json:"object"`
			Survivor string         `json:"survivor"`
			Losers   []string       `json:"losers"`
			Keep     map[string]any `json:"keep"`
			User     string         `json:"user"`
		}
		if err := strict(body, &in); err != nil {
			return nil, err
		}
		user, err := o.actor(in.User)
		if err != nil {
			return nil, err
		}
		return nil, o.MergeAs(user, in.Object, in.Survivor, in.Losers, in.Keep)
	},
	"convert": func(o *Org, body io.Reader) (any, error) {
		var in struct {
			Lead   string `json:"lead"`
			Mapped *bool  `json:"mapped"` // all opt-out fields or none; absent goes by the knob lead_mapping
			User   string `json:"user"`
		}
		if err := strict(body, &in); err != nil {
			return nil, err
		}
		user, err := o.actor(in.User)
		if err != nil {
			return nil, err
		}
		mapping := o.knobs.set().mapping
		if in.Mapped != nil {
			mapping = map[string]string{}
			for _, name := range optOutNames {
				if *in.Mapped {
					mapping[name] = name
				}
			}
		}
		contact, err := o.convert(user, in.Lead, mapping)
		if err != nil {
			return nil, err
		}
		return map[string]string{"contact": contact}, nil
	},
	"delete":   one(func(o *Org, in actionRecord) error { return o.Delete(in.Object, in.ID) }),
	"undelete": one(func(o *Org, in actionRecord) error { return o.Undelete(in.Object, in.ID) }),
	"erase":    one(func(o *Org, in actionRecord) error { return o.Purge(in.Object, in.ID) }),
	"update": func(o *Org, body io.Reader) (any, error) {
		var in struct {
			actionRecord
			Fields map[string]any `json:"fields"`
		}
		if err := strict(body, &in); err != nil {
			return nil, err
		}
		user, err := o.actor(in.User)
		if err != nil {
			return nil, err
		}
		return nil, o.UpdateAs(user, in.Object, in.ID, in.Fields)
	},
}

func one(do func(*Org, actionRecord) error) func(*Org, io.Reader) (any, error) {
	return func(o *Org, body io.Reader) (any, error) {
		var in actionRecord
		if err := strict(body, &in); err != nil {
			return nil, err
		}
		if in.User != "" {
			return nil, fmt.Errorf("user: this is always the administrator's doing")
		}
		return nil, do(o, in)
	}
}

// actor returns the id of a user by username or id.
func (o *Org) actor(name string) (string, error) {
	if name == "" {
		return o.AdminID(), nil
	}
	o.mu.RLock()
	defer o.mu.RUnlock()
	if n := o.userNamed(name); n != 0 {
		return o.users.id(n), nil
	}
	return "", fmt.Errorf("user %q is unknown", name)
}
