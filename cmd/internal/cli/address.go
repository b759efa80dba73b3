package cli

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// SplitAddress splits an address of the form HOST:PORT. HOST may be empty; PORT is a
// number from lowest to 65535. The error says what was probably meant.
func SplitAddress(s string, lowest uint64) (host, port string, err error) {
	if host, port, err = parseAddress(s, lowest); err != nil {
		return "", "", fmt.Errorf("%q is not of the form HOST:PORT: %w", s, err)
	}
	return host, port, nil
}

func parseAddress(s string, lowest uint64) (host, port string, err error) {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		rest, _, _ = strings.Cut(rest, "/")
		return "", "", fmt.Errorf("it is a URL: leave %q out, as in %s", scheme+"://", rest)
	}
	if strings.Contains(s, "/") {
		return "", "", errors.New("it is, or has, a path")
	}
	host, port, err = net.SplitHostPort(s)
	if err != nil {
		return "", "", whyNotSplit(s)
	}
	if err := checkHost(host); err != nil {
		return "", "", err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n < lowest {
		return "", "", fmt.Errorf("the port is a number from %d to 65535, not %q", lowest, port)
	}
	return host, port, nil
}

// whyNotSplit says what is wrong with an address that is not HOST:PORT.
func whyNotSplit(s string) error {
	if i := strings.LastIndexByte(s, ':'); i != strings.IndexByte(s, ':') && !strings.ContainsAny(s, "[]") {
		if _, err := netip.ParseAddr(s[:i]); err == nil {
			return fmt.Errorf("an IPv6 address is in brackets, as in [%s]:%s", s[:i], s[i+1:])
		}
		if _, err := netip.ParseAddr(s); err == nil {
			return fmt.Errorf("an IPv6 address is in brackets, and the port is missing, as in [%s]:7001", s)
		}
		return errors.New("it has too many colons")
	}
	if !strings.Contains(s, ":") || strings.HasSuffix(s, "]") {
		return errors.New("the port is missing")
	}
	return errors.New("its brackets are not those of an IPv6 address")
}

// checkHost returns an error if host is neither an IP address nor a name.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return nil
	}
	last := host[strings.LastIndexByte(host, '.')+1:]
	switch {
	case strings.ContainsFunc(host, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		return fmt.Errorf("the host %q has white space or what can't be seen", host)
	case strings.ContainsAny(host, "@?#%,:[]"), strings.Trim(last, "0123456789") == "":
		return fmt.Errorf("%q is neither the name nor the address of a host", host)
	}
	return nil
}

// EveryAddress reports whether host, which a server listens on, stands for all addresses
// of this machine.
func EveryAddress(host string) bool {
	ip, _ := netip.ParseAddr(host)
	return host == "" || ip.IsUnspecified()
}

// CheckAdvertised returns an error if s is no address that clients can connect to.
func CheckAdvertised(s string) error {
	host, _, err := SplitAddress(s, 1)
	if err != nil {
		return err
	}
	switch {
	case host == "":
		return fmt.Errorf("%q names no host: the form is HOST:PORT", s)
	case EveryAddress(host):
		return fmt.Errorf("%q is every address, and none that clients can reach: say which one they should use", s)
	}
	return nil
}

// checkEtcdEndpoint returns an error if s is no address of an etcd.
func checkEtcdEndpoint(s string) error {
	address := strings.TrimRight(strings.TrimSpace(s), "/")
	for _, scheme := range []string{"http://", "https://"} {
		address = strings.TrimPrefix(address, scheme)
	}
	host, _, err := parseAddress(address, 1)
	switch {
	case address == "":
		return nil // after a trailing comma
	case err == nil && host == "":
		err = errors.New("the host is missing")
	}
	if err != nil {
		return fmt.Errorf("%q is not of the form http://HOST:PORT: %w", s, err)
	}
	return nil
}
