package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// maxAnswer bounds an answer with one object, which etcd bounds to 1.5 MiB, and
	// an event of a watch.
	maxAnswer = 8 << 20
	// listPage is how many objects one request lists, and maxPage bounds its answer.
	listPage = 500
	maxPage  = 256 << 20
)

// read makes a request and decodes its answer into out, or returns the server's error,
// which is an [*apierrors.StatusError].
func (a *access) read(ctx context.Context, method, name string, query url.Values, kind string, body []byte, limit int64, out any) error {
	resp, err := a.do(ctx, method, name, query, kind, body)
	if err != nil {
		return err
	}
	defer drain(resp)
	if resp.StatusCode >= http.StatusMultipleChoices {
		return refusal(resp, method, name)
	}
	limited := &io.LimitedReader{R: resp.Body, N: limit}
	if err := json.NewDecoder(limited).Decode(out); err != nil {
		if limited.N <= 0 {
			return fmt.Errorf("the answer has more than %d bytes", limit)
		}
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// refusal returns the error that an answer with an error's status stands for.
func refusal(resp *http.Response, method, name string) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what came of it is enough
	after, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	var status metav1.Status
	if err := json.Unmarshal(body, &status); err == nil && status.Kind == "Status" && status.Message != "" {
		if after > 0 {
			if status.Details == nil {
				status.Details = &metav1.StatusDetails{}
			}
			status.Details.RetryAfterSeconds = max(status.Details.RetryAfterSeconds, int32(min(after, 3600)))
		}
		return &apierrors.StatusError{ErrStatus: status}
	}
	leases := schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
	return apierrors.NewGenericServerResponse(resp.StatusCode, method, leases, name, string(body), after, true)
}

func (a *access) get(ctx context.Context, name string) (object, error) {
	return a.one(ctx, http.MethodGet, name, "", nil)
}

// create makes a Lease, which must not exist.
func (a *access) create(ctx context.Context, lease *coordinationv1.Lease) (object, error) {
	return a.write(ctx, http.MethodPost, "", lease)
}

// update replaces the Lease of that UID and version. Another version is a conflict.
func (a *access) update(ctx context.Context, lease *coordinationv1.Lease, uid types.UID, version string) (object, error) {
	lease.UID, lease.ResourceVersion = uid, version
	return a.write(ctx, http.MethodPut, lease.Name, lease)
}

func (a *access) write(ctx context.Context, method, name string, lease *coordinationv1.Lease) (object, error) {
	body, err := json.Marshal(lease)
	if err != nil {
		return object{}, err
	}
	return a.one(ctx, method, name, "application/json", body)
}

// setAnnotation sets one annotation of a Lease, which must exist, whatever its version.
func (a *access) setAnnotation(ctx context.Context, name, annotation, value string) (object, error) {
	patch := map[string]any{"metadata": map[string]any{"annotations": map[string]string{annotation: value}}}
	body, err := json.Marshal(patch)
	if err != nil {
		return object{}, err
	}
	return a.one(ctx, http.MethodPatch, name, string(types.MergePatchType), body)
}

// dropAnnotations removes annotations of a Lease that still have these values, or none.
// An [apierrors.IsInvalid] error says that some have other values.
func (a *access) dropAnnotations(ctx context.Context, name string, values map[string]string) (object, error) {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value string `json:"value,omitempty"`
	}
	ops := make([]operation, 0, 2*len(values))
	for annotation, value := range values {
		path := "/metadata/annotations/" + pointer(annotation)
		ops = append(ops, operation{"test", path, value}, operation{"remove", path, ""})
	}
	body, err := json.Marshal(ops)
	if err != nil {
		return object{}, err
	}
	return a.one(ctx, http.MethodPatch, name, string(types.JSONPatchType), body)
}

// remove deletes the Lease of that UID and version. Another version is a conflict.
func (a *access) remove(ctx context.Context, name string, uid types.UID, version string) error {
	body, err := json.Marshal(metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}})
	if err != nil {
		return err
	}
	var status metav1.Status
	return a.read(ctx, http.MethodDelete, name, nil, "application/json", body, maxAnswer, &status)
}

func (a *access) one(ctx context.Context, method, name, kind string, body []byte) (object, error) {
	var lease coordinationv1.Lease
	if err := a.read(ctx, method, name, nil, kind, body, maxAnswer, &lease); err != nil {
		return object{}, err
	}
	return decode(&lease), nil
}

// list makes one request for a list.
func (a *access) list(ctx context.Context, options metav1.ListOptions) (*coordinationv1.LeaseList, error) {
	query := url.Values{}
	for name, value := range map[string]string{
		"labelSelector":   options.LabelSelector,
		"resourceVersion": options.ResourceVersion,
		"continue":        options.Continue,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	query.Set("limit", strconv.FormatInt(options.Limit, 10))
	list := new(coordinationv1.LeaseList)
	return list, a.read(ctx, http.MethodGet, "", query, "", nil, maxPage, list)
}

// A listing is a list of objects at one version.
type listing struct {
	objects []object
	version string
}

// listAll lists the objects with the labels, a page at a time, each within the time of a
// request. With cached it takes what the API server has in memory, which may be a little
// old and costs etcd nothing.
func (s *Store) listAll(ctx context.Context, selector string, cached bool) (listing, error) {
	options := metav1.ListOptions{LabelSelector: selector, Limit: listPage}
	if cached {
		options.ResourceVersion = "0"
	}
	var l listing
	for {
		var page *coordinationv1.LeaseList
		err := s.call(ctx, "list", func(ctx context.Context) (err error) {
			page, err = s.access.list(ctx, options)
			return err
		})
		if err != nil {
			return listing{}, err
		}
		for i := range page.Items {
			l.objects = append(l.objects, decode(&page.Items[i]))
		}
		if l.version = page.ResourceVersion; page.Continue == "" {
			return l, nil
		}
		options.Continue, options.ResourceVersion = page.Continue, ""
	}
}

// A watchEvent is one line of a watch.
type watchEvent struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// An eventReader reads a watch's events.
type eventReader struct {
	body    io.ReadCloser
	limited *io.LimitedReader
	decoder *json.Decoder
}

// watch opens a watch from a version on. The server ends it after the timeout.
func (a *access) watch(ctx context.Context, selector, version string, timeout time.Duration) (*eventReader, error) {
	resp, err := a.do(ctx, http.MethodGet, "", url.Values{
		"watch":               {"true"},
		"allowWatchBookmarks": {"true"},
		"labelSelector":       {selector},
		"resourceVersion":     {version},
		"timeoutSeconds":      {strconv.Itoa(int(timeout.Seconds()))},
	}, "", nil)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer drain(resp)
		return nil, refusal(resp, "watch", "")
	}
	limited := &io.LimitedReader{R: resp.Body}
	return &eventReader{body: resp.Body, limited: limited, decoder: json.NewDecoder(limited)}, nil
}

var errWatchEnded = errors.New("the API server ended the watch")

// next returns the next event's kind, object and version. A bookmark has a version alone.
// [errWatchEnded] is the end that the server has announced.
func (r *eventReader) next() (kind string, o object, err error) {
	r.limited.N = maxAnswer
	var event watchEvent
	if err := r.decoder.Decode(&event); err != nil {
		switch {
		case errors.Is(err, io.EOF):
			return "", object{}, errWatchEnded
		case r.limited.N <= 0:
			err = fmt.Errorf("an event has more than %d bytes", maxAnswer)
		}
		return "", object{}, err
	}
	if event.Type == "ERROR" {
		var status metav1.Status
		if err := json.Unmarshal(event.Object, &status); err != nil {
			return "", object{}, fmt.Errorf("reading the watch's error: %w", err)
		}
		return "", object{}, &apierrors.StatusError{ErrStatus: status}
	}
	var lease coordinationv1.Lease
	if err := json.Unmarshal(event.Object, &lease); err != nil {
		return "", object{}, fmt.Errorf("reading an event: %w", err)
	}
	return event.Type, decode(&lease), nil
}

func (r *eventReader) close() { _ = r.body.Close() }
