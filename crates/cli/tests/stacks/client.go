// A client that nobody here wrote: Go's net/http, with a certificate, a key and the certificates that it trusts.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	url, certificate, key, authorities := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		panic(err)
	}
	pem, err := os.ReadFile(authorities)
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		panic("no certificate in " + authorities)
	}
	for _, http2 := range []bool{true, false} {
		config := &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}}
		answer, err := client.Get(url)
		if err != nil {
			fmt.Println("failed", err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		fmt.Println(answer.Proto, answer.StatusCode, strings.TrimSpace(string(body)), err)
	}
}
