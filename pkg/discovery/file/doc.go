// Package file keeps discovery's records as files in a directory, for the processes
// of one machine.
//
// The layout is that of NVIDIA Dynamo's file store, so that each can read the
// other's directory: the record v1/instances/a/b is the file a%2Fb in the
// directory v1/instances. It is written to a temporary file and then moved into
// place. Its owner renews it every 3 s by setting the modification time. A record
// whose modification time is 10 s in the past, or more than 10 s in the future, is
// dead: listings leave it out, and whoever sees it removes it.
//
// Records of two kinds, which Dynamo doesn't have, begin with a header of one line:
//
//	#migrate {"key":"v1/instances/…","ttl_ms":5000}
//
// A record with a ttl stands until ttl_ms after the file's modification time, and
// nobody renews it. A record whose file name would be longer than 255 bytes is named
// sha256- and the hexadecimal SHA-256 hash of the key's rest; key has the whole key.
//
// Unlike the original, the package
//   - judges age by the file system's clock, not by this machine's, and does not
//     count time in which that clock was set or the machine was asleep;
//   - writes a record again that was swept, deleted, cut or edited;
//   - scans the directory in addition to watching it;
//   - makes files and directories that only its own user can use, or the
//     directory's owner if root makes them;
//   - never follows or removes anything outside the directory, symlinks included.
//     The directory itself may be a symlink.
//
// A file belongs to a record's owner if it has the owner's incarnation, or is the
// damaged rest of a record. Of two owners of a key the newest stands; the other
// puts its record again once the key is free.
//
// The file system must be local, or its clock, inode numbers and renames must behave
// like a local one's. All processes must run as the directory's owner or as root.
// Reading makes and writes nothing but the probe that reads the clock, and can do
// without that: see [Store.Watch].
package file
