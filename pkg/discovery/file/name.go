package file

import (
	"fmt"
	"strings"

	"github.com/request-migration/migrate/pkg/discovery"
)

const (
	// maxName is the longest name in bytes that file systems take, by and large.
	maxName = 255
	// tempPrefix begins the names of files that are no records, as in Dynamo.
	tempPrefix = ".tmp_"
)

const upperHex = "0123456789ABCDEF"

// fileName returns the name of the file for what follows the bucket in a key:
// every byte that is no ASCII letter or digit is percent-encoded, as Dynamo has
// it. So it has no separator and no dot, whatever the key.
func fileName(rest string) (string, error) {
	var name strings.Builder
	for i := range len(rest) {
		if c := rest[i]; alphanumeric(c) {
			name.WriteByte(c)
		} else {
			name.WriteByte('%')
			name.WriteByte(upperHex[c>>4])
			name.WriteByte(upperHex[c&15])
		}
	}
	if name.Len() > maxName {
		return "", fmt.Errorf("its file name would have %d bytes, more than the %d that file systems take", name.Len(), maxName)
	}
	return name.String(), nil
}

// keyOf returns the key whose file has that name in the bucket. It has none if
// the name is not the very one that fileName gives: such a file isn't ours.
func keyOf(bucket, name string) (key string, ok bool) {
	rest := make([]byte, 0, len(name))
	for i := 0; i < len(name); i++ {
		c := name[i]
		if c == '%' && i+2 < len(name) {
			hi, lo := strings.IndexByte(upperHex, name[i+1]), strings.IndexByte(upperHex, name[i+2])
			if hi < 0 || lo < 0 {
				return "", false
			}
			c = byte(hi<<4 | lo)
			i += 2
			if alphanumeric(c) {
				return "", false
			}
		} else if !alphanumeric(c) {
			return "", false
		}
		rest = append(rest, c)
	}
	key = bucket + "/" + string(rest)
	// The value does not matter here.
	if len(name) > maxName || discovery.CheckRecord(key, []byte{0}, 0) != nil {
		return "", false
	}
	return key, true
}

func alphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}
