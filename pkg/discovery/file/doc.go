// Package file keeps discovery's records as files of a directory, for processes
// of one machine.
//
// The layout is that of NVIDIA Dynamo's file store, so that each can read the
// other's directory: the record v1/instances/a/b is the file a%2Fb in the
// directory v1/instances, published whole by way of a temporary file. Its owner
// touches it every 3 s; one that was not touched for 10 s is dead. It is left
// out of listings from then on, and whoever sees it removes it.
//
// Other than the original, it judges age by the file system's own clock and not
// by this machine's, writes a record again that was swept or deleted, scans the
// directory besides watching it, keeps what it makes to its own user, and never
// follows or removes anything outside its directory, symlinks included. The
// directory itself may be given by way of one.
//
// Needed are a local file system or one whose clock, inode numbers and renames
// behave like a local one's. All processes must run as the directory's user.
package file
