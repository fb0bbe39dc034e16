// Package journal is the append-only record of everything heed was told and did, and the only source of truth: every
// other store can be deleted and built again from it. It keeps payloads in order, durably and verifiably.
//
// It is not a database: payloads are opaque, nothing is ever changed or removed, there is no index (keep a
// [Position]), and grouping many callers into one batch is the caller's work.
//
// # Promises
//
//   - [Journal.Append] returns after fdatasync. A batch is written only when the batch before it is on disk.
//   - After a failed sync nothing more is accepted ([ErrFailed]); a sync is never tried again.
//   - A full disk ([ErrFull]) stores nothing and leaves the journal sound; before that, space held in reserve is used.
//   - Damage is reported ([CorruptError]) and never repaired. One thing only is cut off, and kept aside: an unreadable
//     end behind which no record of a later batch can be read, so that it may be a batch nobody was told about.
//
// That last case cannot be told from damage done later to the very last batch. Options.Acked closes the gap for whoever
// remembers how far the journal reached. The chain finds accidents and edits; whoever may write the files could compute
// a new one, unless [Journal.Head] is also kept elsewhere: see [Anchor].
//
// A record's hash covers every record before it, and [Journal.Links] proves that to somebody who may not see them: see
// package chain.
//
// # Files
//
//	LOCK                          flock(2) while a journal is open for appending; holds the process id
//	ballast                       space in reserve for a full disk, contents meaningless
//	<20 digits>.journal           segment, named by the sequence of its first record
//	<segment>.torn-<offset>[.n]   an end that was cut off at that byte
//	<segment>.tmp                 a segment being created; meaningless after a crash
//
// # Format, version 2
//
// All integers are little endian. CRC-32C is the Castagnoli polynomial of RFC 3720, appendix B.4; SHA-256 is FIPS 180-4.
//
// A segment begins with a header of 48+32m bytes:
//
//	 0   8  "HEEDJRNL"
//	 8   4  version, 2
//	12   4  CRC-32C of the header from byte 16 on
//	16   8  sequence of the segment's first record
//	24   8  offset of the last record in the segment before; 0 in the first segment
//	32  16  salt, random
//	48 32m  hashes of the m earlier records that later ones rest on, the last record before the segment last:
//	        chain.Tip.Hashes; m is chain.TipSize of the number of records before, 0 in the first segment
//
// Records follow without gaps up to the end of the file:
//
//	 0   4  length n of nonce and payload, 17 to 16777232
//	 4   4  CRC-32C of the segment's salt followed by bytes 8 to 55+n of the record
//	 8   8  sequence: 1 in the first segment's first record, then always one more
//	16   8  batch: sequence of the first record that was written together with this one
//	24  32  hash of the record, as package chain defines it
//	56  16  nonce, random
//	72 n-16 payload
//
// The hash covers everything but the batch, which says nothing about what happened. Version 1 is described in v1.go.
//
// The salt keeps a payload that quotes a record from being taken for one. A record's batch is its own sequence or the
// batch of the record before it, and a batch never spans two segments.
package journal
