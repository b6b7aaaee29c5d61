// A client that is stock Go: grpc-go, with a certificate, its key and the authorities that it trusts. It says what
// becomes of each thing that it tries, a line each.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

const health = "/grpc.health.v1.Health/"
const whoami = "/countersign.v1.Whoami/Whoami"

// Messages as they are.
type same struct{}

func (same) Marshal(v interface{}) ([]byte, error)      { return *v.(*[]byte), nil }
func (same) Unmarshal(data []byte, v interface{}) error { *v.(*[]byte) = append([]byte{}, data...); return nil }
func (same) Name() string                               { return "proto" }

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func connected(target, certificate, key, authorities string) *grpc.ClientConn {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	must(err)
	pem, err := os.ReadFile(authorities)
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	secrets := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots})
	connection, err := grpc.Dial(target, grpc.WithTransportCredentials(secrets),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(same{})))
	must(err)
	return connection
}

func outcome(message []byte, err error) string {
	if err != nil {
		told := status.Convert(err)
		return told.Code().String() + " " + told.Message()
	}
	return hex.EncodeToString(message)
}

func unary(connection *grpc.ClientConn, method string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var sent, got []byte
	err := connection.Invoke(ctx, method, &sent, &got)
	return outcome(got, err)
}

func watch(ctx context.Context, connection *grpc.ClientConn) func() string {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, health+"Watch")
	must(err)
	var sent []byte
	must(stream.SendMsg(&sent))
	must(stream.CloseSend())
	return func() string {
		var got []byte
		err := stream.RecvMsg(&got)
		return outcome(got, err)
	}
}

// Unavailable is what a client tries again.
func settled(connection *grpc.ClientConn, method string) string {
	said := ""
	for i := 0; i < 100; i++ {
		said = unary(connection, method)
		if !strings.HasPrefix(said, "Unavailable") {
			break
		}
		time.Sleep(200 * time.Millisecond)
	}
	return said
}

func main() {
	what := os.Args[1]
	connection := connected(os.Args[2], os.Args[3], os.Args[4], os.Args[5])
	fmt.Println("version grpc-go", grpc.Version, runtime.Version())
	background := context.Background()
	switch what {
	case "calls":
		fmt.Println("unary", unary(connection, health+"Check"))
		fmt.Println("whoami", unary(connection, whoami))
		fmt.Println("denied", unary(connection, "/shop.Orders/Place"))
		ctx, stop := context.WithTimeout(background, time.Second)
		late := watch(ctx, connection)
		fmt.Println("stream", late())
		fmt.Println("deadline", late())
		stop()
		ctx, cancel := context.WithCancel(background)
		stream := watch(ctx, connection)
		stream()
		cancel()
		fmt.Println("cancelled", stream())
		fmt.Println("alive", unary(connection, health+"Check"))
	case "watch":
		stream := watch(background, connection)
		fmt.Println("stream", stream())
		fmt.Println("watching")
		fmt.Println("cut", stream())
		fmt.Println("again", settled(connection, whoami))
	case "restart":
		fmt.Println("before", unary(connection, health+"Check"))
		stream := watch(background, connection)
		fmt.Println("stream", stream())
		fmt.Println("open")
		fmt.Println("stopped", stream())
		bufio.NewReader(os.Stdin).ReadString('\n')
		fmt.Println("after", settled(connection, health+"Check"))
	default:
		panic(what)
	}
}
