package openai

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
	"unicode"
)

type rawMessage = json.RawMessage

func isSpaceOrControl(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// A Pick is a model of an engine that is to be listed.
type Pick struct {
	// Name is what it is listed as. "" means ID.
	Name string
	// ID is the engine's own id of it, or one of its aliases.
	ID string
}

// A Model is what an engine serves.
type Model struct {
	// Name is what it is listed as: a [Pick]'s, else the engine's first alias that
	// is not the id, else the id.
	Name string
	// ID is the engine's own id.
	ID string
	// ByPrefix says that an answer can be carried on behind its beginning.
	ByPrefix bool
}

// modelList is what an engine says of its models. It is not changed once it is
// known.
type modelList struct {
	kind   Kind
	models []Model
	ids    map[string]string // of each name, alias and id
}

// id returns the engine's id of the model of that name; "" if there is none.
func (l *modelList) id(name string) string { return l.ids[name] }

// knownModels is the list that was read last. It is safe for concurrent use.
type knownModels struct {
	wanted chan struct{} // holds one element if the list is to be read again

	mu      sync.Mutex
	list    *modelList // nil if none was read
	reading chan struct{}
	tried   time.Time
}

func (k *knownModels) get() *modelList {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.list
}

func (k *knownModels) set(l *modelList) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.list = l
}

// want makes [Engine.Watch] read the list again.
func (k *knownModels) want() {
	select {
	case k.wanted <- struct{}{}:
	default:
	}
}

// lists reports whether the engine has listed the model of that id.
func (k *knownModels) lists(id string) bool {
	l := k.get()
	return l != nil && l.id(id) == id
}

// names returns what the model of that id is listed as.
func (k *knownModels) names(id string) []string {
	l := k.get()
	if l == nil {
		return nil
	}
	var names []string
	for _, m := range l.models {
		if m.ID == id {
			names = append(names, m.Name)
		}
	}
	return names
}

// askAgain is how long a list that could not be read is not asked for again by
// requests.
const askAgain = 2 * time.Second

// ask returns the list of models. Where nobody has read it yet it is read now,
// once for all requests that wait for it; an engine that does not tell is of no
// kind that is known.
func (e *Engine) ask(ctx context.Context) *modelList {
	k := &e.known
	k.mu.Lock()
	if k.list != nil || time.Since(k.tried) < askAgain && k.reading == nil {
		defer k.mu.Unlock()
		return cmp.Or(k.list, &modelList{kind: cmp.Or(e.cfg.Kind, Other)})
	}
	reading := k.reading
	mine := reading == nil
	if mine {
		reading = make(chan struct{})
		k.reading = reading
	}
	k.mu.Unlock()
	if !mine {
		select {
		case <-reading:
		case <-ctx.Done():
		}
		return cmp.Or(k.get(), &modelList{kind: cmp.Or(e.cfg.Kind, Other)})
	}
	asking, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	l, err := e.readModels(asking)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tried, k.reading = time.Now(), nil
	close(reading)
	if err == nil && k.list == nil {
		k.list = l
	}
	return cmp.Or(k.list, &modelList{kind: cmp.Or(e.cfg.Kind, Other)})
}

// maxModels is how long a list of models may be, in bytes. Hosted providers list
// some hundred.
const maxModels = 8 << 20

// readModels asks the engine for its models.
func (e *Engine) readModels(ctx context.Context) (*modelList, error) {
	status, body, err := e.get(ctx, modelsPath, maxModels)
	if err != nil {
		return nil, fmt.Errorf("reading the engine's models: %w", err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("reading the engine's models: %w", &engineError{status: status, body: body})
	}
	l, err := e.parseModels(body)
	if err != nil {
		return nil, fmt.Errorf("reading the engine's models: %w", err)
	}
	return l, nil
}

// parseModels reads a list of models and picks those that are wanted.
func (e *Engine) parseModels(body []byte) (*modelList, error) {
	var answer struct {
		Data []struct {
			ID      string          `json:"id"`
			OwnedBy string          `json:"owned_by"`
			Aliases json.RawMessage `json:"aliases"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, err
	}
	l := &modelList{kind: e.cfg.Kind, ids: map[string]string{}}
	type entry struct {
		id      string
		aliases []string
	}
	var entries []entry
	for _, m := range answer.Data {
		if m.ID == "" {
			continue
		}
		l.kind = cmp.Or(l.kind, kindOf(m.OwnedBy))
		entry := entry{id: m.ID}
		_ = json.Unmarshal(m.Aliases, &entry.aliases) // of another form: none
		for _, alias := range append(entry.aliases, m.ID) {
			if _, taken := l.ids[alias]; !taken {
				l.ids[alias] = m.ID
			}
		}
		l.ids[m.ID] = m.ID
		entries = append(entries, entry)
	}
	l.kind = cmp.Or(l.kind, Other)
	byPrefix := e.cfg.ResumeByPrefix || l.kind.resumes()
	if len(e.cfg.Models) == 0 {
		for _, m := range entries {
			name := m.id
			if i := slices.IndexFunc(m.aliases, func(a string) bool { return a != m.id && a != "" }); i >= 0 {
				name = m.aliases[i]
			}
			l.models = append(l.models, Model{Name: name, ID: m.id, ByPrefix: byPrefix})
		}
		return l, nil
	}
	ids := make(map[string]string)
	for _, pick := range e.cfg.Models {
		id := l.ids[cmp.Or(pick.ID, pick.Name)]
		if id == "" {
			continue // it may come: engines load models later
		}
		name := cmp.Or(pick.Name, pick.ID)
		ids[name], ids[id] = id, id
		l.models = append(l.models, Model{Name: name, ID: id, ByPrefix: byPrefix})
	}
	for name, id := range l.ids {
		if _, picked := ids[name]; !picked {
			ids[name] = id
		}
	}
	l.ids = ids
	return l, nil
}

// get asks the engine and returns what it answers, at most limit bytes of it.
func (e *Engine) get(ctx context.Context, path string, limit int64) (status int, body []byte, err error) {
	header := http.Header{}
	e.authorize(header)
	resp, err := e.http.do(ctx, http.MethodGet, e.at(path), header, nil)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit))
	return resp.StatusCode, body, err
}
