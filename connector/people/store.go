package people

import (
	"sync"
	"time"
)

// memory keeps sessions by the hash of their token (scs.Store). What has ended is thrown out as new ones come.
type memory struct {
	mu       sync.Mutex
	sessions map[string]kept
	swept    time.Time
}

type kept struct {
	data  []byte
	until time.Time
}

func (m *memory) Delete(token string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.sessions, token)
	return nil
}

func (m *memory) Find(token string) (data []byte, ok bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.sessions[token]
	return k.data, ok && time.Now().Before(k.until), nil
}

func (m *memory) Commit(token string, data []byte, until time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); now.Sub(m.swept) > time.Minute {
		for t, k := range m.sessions {
			if !now.Before(k.until) {
				delete(m.sessions, t)
			}
		}
		m.swept = now
	}
	m.sessions[token] = kept{data, until}
	return nil
}
