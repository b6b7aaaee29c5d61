// Says what crypto/x509 reads in PEM files: one line for each name, key and end of a certificate, or for a request.
package main

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
)

func read(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("no PEM")
	}
	if block.Type == "CERTIFICATE REQUEST" {
		request, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return err
		}
		if err := request.CheckSignature(); err != nil {
			return err
		}
		fmt.Println("key", request.PublicKeyAlgorithm)
		return nil
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	for _, uri := range certificate.URIs {
		fmt.Println("uri", uri)
	}
	for _, name := range certificate.DNSNames {
		fmt.Println("dns", name)
	}
	for _, ip := range certificate.IPAddresses {
		fmt.Println("ip", ip)
	}
	fmt.Println("key", certificate.PublicKeyAlgorithm)
	fmt.Println("ends", certificate.NotAfter.Unix())
	return nil
}

func main() {
	for _, path := range os.Args[1:] {
		if err := read(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}
