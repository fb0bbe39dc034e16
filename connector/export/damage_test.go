package export

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/xuri/excelize/v2"
)

func TestADamagedSheetIsNoShorterList(t *testing.T) {
	f := excelize.NewFile()
	for i, v := range []string{"phone", "+12065550100", "+12065550101", "+12065550102", "+12065550103"} {
		_ = f.SetCellStr("Sheet1", "A"+string(rune('1'+i)), v)
	}
	var whole bytes.Buffer
	if err := f.Write(&whole); err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(string) string{
		"cut":  func(s string) string { return s[:strings.Index(s, `<row r="4"`)] },
		"sign": func(s string) string { return strings.Replace(s, `<row r="4"`, "<\x01", 1) },
	} {
		zr, _ := zip.NewReader(bytes.NewReader(whole.Bytes()), int64(whole.Len()))
		var out bytes.Buffer
		zw := zip.NewWriter(&out)
		for _, e := range zr.File {
			r, _ := e.Open()
			b, _ := io.ReadAll(r)
			if strings.HasSuffix(e.Name, "sheet1.xml") {
				b = []byte(damage(string(b)))
			}
			w, _ := zw.Create(e.Name)
			_, _ = w.Write(b)
		}
		_ = zw.Close()
		n := 0
		_, err := Reader{Region: "US"}.Read(&out, func(e Entry) error { n++; return nil })
		if err == nil {
			t.Errorf("%s: %d of 4 numbers were read and no error", name, n)
		} else if !errors.Is(err, ErrList) || n > 0 {
			t.Errorf("%s: %d numbers were read before %v", name, n, err)
		}
	}
}
