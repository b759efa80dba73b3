package gateway

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// A Key is what a client must have to be served.
type Key struct {
	Name string // for the log
	Key  string
}

// keyName is where a request's context has the name of its key.
type keyName struct{}

// guard lets a request through that may be made: not by a page elsewhere, and not without a
// key if there are keys.
func (g *Gateway) guard(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if origin := r.Header.Get("Origin"); origin != "" {
			if !g.mayAsk(r, origin) {
				(&apiError{status: http.StatusForbidden, kind: "permission_error", code: "origin_not_allowed",
					message: "pages of " + origin + " may not ask this gateway: --cors-origin lists those that may"}).write(w)
				return
			}
			allow(w.Header(), r, origin)
		}
		if r.Method == http.MethodOptions {
			next(w, r) // a browser's question, which comes without a key
			return
		}
		name, ok := g.keyOf(r)
		if !ok {
			(&apiError{status: http.StatusUnauthorized, kind: "authentication_error", code: "invalid_api_key",
				message: "a key is needed that this gateway knows, as Authorization: Bearer KEY"}).write(w)
			return
		}
		next(w, r.WithContext(context.WithValue(r.Context(), keyName{}, name)))
	}
}

// mayAsk reports whether a page of that origin may ask. A page of this gateway itself is from
// where the request goes; on a loopback address that is one of this machine's names, because
// somebody else's name may be made to point here (DNS rebinding).
func (g *Gateway) mayAsk(r *http.Request, origin string) bool {
	if slices.Contains(g.cfg.Origins, origin) {
		return true
	}
	from, err := url.Parse(origin)
	if err != nil || from.Host == "" || !strings.EqualFold(from.Host, r.Host) {
		return false
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok || !isLoopback(local.String()) {
		return true
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	return strings.EqualFold(host, "localhost") || isLoopback(net.JoinHostPort(strings.Trim(host, "[]"), "0"))
}

func isLoopback(hostPort string) bool {
	addr, err := netip.ParseAddrPort(hostPort)
	return err == nil && addr.Addr().Unmap().IsLoopback()
}

// allow tells a browser that a page of that origin may read the answer.
func allow(h http.Header, r *http.Request, origin string) {
	h.Set("Access-Control-Allow-Origin", origin)
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, X-Migrate-Instance, Retry-After")
	if r.Method != http.MethodOptions {
		return
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	h.Set("Access-Control-Max-Age", "600")
}

// keyOf returns the name of the request's key, and whether it may be served.
func (g *Gateway) keyOf(r *http.Request) (name string, ok bool) {
	if len(g.cfg.Keys) == 0 {
		return "", true
	}
	given, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		given = r.Header.Get("X-Api-Key")
	}
	// Of the hashes, so that the time tells nothing of a key's length either.
	sum := sha256.Sum256([]byte(given))
	for _, k := range g.cfg.Keys {
		known := sha256.Sum256([]byte(k.Key))
		if subtle.ConstantTimeCompare(sum[:], known[:]) == 1 {
			name, ok = k.Name, true
		}
	}
	return name, ok && given != ""
}
