// Sends a body with its length, in chunks and compressed: go run ask.go URL FILE
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"os"
)

func main() {
	body, err := os.ReadFile(os.Args[2])
	check(err)
	var compressed bytes.Buffer
	writer := gzip.NewWriter(&compressed)
	_, err = writer.Write(body)
	check(err)
	check(writer.Close())
	ask(bytes.NewReader(body), "identity")
	ask(io.MultiReader(bytes.NewReader(body)), "identity") // of unknown length: in chunks
	ask(&compressed, "gzip")
}

func ask(body io.Reader, coding string) {
	request, err := http.NewRequest(http.MethodPost, os.Args[1], body)
	check(err)
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Content-Encoding", coding)
	response, err := http.DefaultClient.Do(request)
	check(err)
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	check(err)
	fmt.Println(string(text))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
