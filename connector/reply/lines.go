package reply

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
	"unsafe"
)

// maxLine is the longest line that ClassifyLines reads in full, in bytes.
const maxLine = 1 << 20

// ClassifyLines reads texts, one a line, and writes one JSON object a line, in the same order:
//
//	{"text":"Stop by at 5?","verdict":"none","rule":"complement","keyword":"stop"}
//
// A line ends in \n or \r\n; the last one need not. Bytes that are not UTF-8 come out as U+FFFD. Of a line longer than
// 1 MiB the rest is skipped, both in the output and in the judgement, which is then hold unless the beginning asks to
// stop. Output is buffered, and flushed whenever no more input is waiting. It stops at the first error of the reader,
// the writer or the context, which is looked at before each read; what was judged until then has been written.
func ClassifyLines(ctx context.Context, r io.Reader, w io.Writer, c *Classifier) error {
	in := bufio.NewReaderSize(r, 64<<10)
	out := bufio.NewWriterSize(w, 64<<10)
	var long, obj []byte
	for {
		if in.Buffered() == 0 {
			if err := out.Flush(); err != nil {
				return fmt.Errorf("write verdicts: %w", err)
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			long = append(long[:0], line...)
			for errors.Is(err, bufio.ErrBufferFull) {
				line, err = in.ReadSlice('\n')
				long = append(long, line[:min(len(line), maxLine+2-min(len(long), maxLine+2))]...)
			}
			line = long
		}
		if err != nil && err != io.EOF {
			return errors.Join(fmt.Errorf("read texts: %w", err), out.Flush())
		}
		if len(line) > 0 {
			line = bytes.TrimSuffix(line, []byte{'\n'})
			line = bytes.TrimSuffix(line, []byte{'\r'})
			line = line[:min(len(line), maxLine)]
			// The verdict keeps nothing of the text, so it may alias the buffer.
			res := c.Classify(unsafe.String(unsafe.SliceData(line), len(line)))
			obj = append(obj[:0], `{"text":"`...)
			obj = appendJSON(obj, line)
			obj = append(obj, `","verdict":"`...)
			obj = append(obj, res.Verdict...)
			obj = append(obj, `","rule":"`...)
			obj = append(obj, res.Rule...)
			obj = append(obj, `","keyword":"`...)
			obj = appendJSON(obj, unsafe.Slice(unsafe.StringData(res.Keyword), len(res.Keyword)))
			obj = append(obj, "\"}\n"...)
			if _, err := out.Write(obj); err != nil {
				return fmt.Errorf("write verdicts: %w", err)
			}
		}
		if err == io.EOF {
			if err := out.Flush(); err != nil {
				return fmt.Errorf("write verdicts: %w", err)
			}
			return nil
		}
	}
}

// appendJSON appends s as the inside of a JSON string (RFC 8259), with U+FFFD for what is not UTF-8.
func appendJSON(dst, s []byte) []byte {
	const hex = "0123456789abcdef"
	done := 0
	for i := 0; i < len(s); {
		b := s[i]
		if b < utf8.RuneSelf {
			if b >= ' ' && b != '"' && b != '\\' && b != 0x7f {
				i++
				continue
			}
			dst = append(dst, s[done:i]...)
			switch b {
			case '"', '\\':
				dst = append(dst, '\\', b)
			case '\t':
				dst = append(dst, '\\', 't')
			case '\r':
				dst = append(dst, '\\', 'r')
			case '\n':
				dst = append(dst, '\\', 'n')
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
			}
			i++
			done = i
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			dst = append(dst, s[done:i]...)
			dst = append(dst, "\uFFFD"...)
			i += n
			done = i
		case r == '\u2028' || r == '\u2029': // line ends to JavaScript
			dst = append(dst, s[done:i]...)
			dst = append(dst, '\\', 'u', '2', '0', '2', hex[r&15])
			i += n
			done = i
		default:
			i += n
		}
	}
	return append(dst, s[done:]...)
}
