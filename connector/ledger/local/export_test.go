package local

import "encoding/binary"

// Sealed returns a value as the index stores it.
func Sealed(key string, value []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, sum([]byte(key), value)), value...)
}
