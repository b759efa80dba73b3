// Package file keeps discovery's records as files of a directory, for processes
// of one machine.
//
// The layout is that of NVIDIA Dynamo's file store, so that each can read the
// other's directory: the record v1/instances/a/b is the file a%2Fb in the
// directory v1/instances, published whole by way of a temporary file. Its owner
// touches it every 3 s; one that was not touched for 10 s is dead, and so is one
// that was touched more than 10 s in the future. It is left out of listings from
// then on, and whoever sees it removes it.
//
// Two kinds of records, which Dynamo doesn't have, begin with a header, one line:
//
//	#migrate {"key":"v1/instances/…","ttl_ms":5000}
//
// Those with a ttl, which nobody touches, stand for ttl_ms after the file's time
// of change. Those whose names would be longer than 255 bytes are named sha256-
// and the hash of what the name would have encoded, in hexadecimal; key has it.
//
// Other than the original, the package judges age by the file system's own clock
// and not by this machine's; does not count time in which nobody could touch a
// file, as that clock was set or the machine asleep; writes a record again that
// was swept, deleted, cut or edited; scans the directory besides watching it;
// keeps what it makes to its own user, or where root makes it to the directory's
// owner; and never follows or removes anything outside its directory, symlinks
// included. The directory itself may be given by way of one.
//
// A record is its owner's as long as it has the owner's incarnation or is what
// is left of it after damage. Of two owners of a key the newest stands; the
// other's record comes back when that one has gone.
//
// Needed are a local file system or one whose clock, inode numbers and renames
// behave like a local one's. All processes must run as the directory's user, or
// as root. For reading nothing is made or written but for a look at the clock,
// which can be done without: see [Store.Watch].
package file
