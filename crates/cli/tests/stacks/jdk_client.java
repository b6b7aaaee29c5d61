// A client that is stock Java: the JDK's HttpClient, HTTP/2 and HTTP/1.1, with a certificate, its key and the
// authorities that it trusts. It says what becomes of each thing that it tries, a line each.

import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandler;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.time.Duration;
import java.util.Base64;
import java.util.concurrent.CancellationException;
import java.util.concurrent.CompletionException;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

class JdkClient {
    static String target;
    static SSLContext tls;

    static Certificate[] certificates(String path) throws Exception {
        try (InputStream pem = Files.newInputStream(Path.of(path))) {
            return CertificateFactory.getInstance("X.509").generateCertificates(pem).toArray(new Certificate[0]);
        }
    }

    static SSLContext tls(String certificate, String key, String authorities) throws Exception {
        String pem = Files.readString(Path.of(key)).replaceAll("-----[A-Z ]+-----|\\s", "");
        var encoded = new PKCS8EncodedKeySpec(Base64.getDecoder().decode(pem));
        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(null, null);
        var secret = KeyFactory.getInstance("EC").generatePrivate(encoded);
        own.setKeyEntry("own", secret, new char[0], certificates(certificate));
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, new char[0]);
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        for (Certificate authority : certificates(authorities)) {
            trusted.setCertificateEntry("authority " + trusted.size(), authority);
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        SSLContext context = SSLContext.getInstance("TLSv1.3");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    static HttpClient client(HttpClient.Version version) {
        return HttpClient.newBuilder().sslContext(tls).version(version).build();
    }

    static HttpRequest.Builder page(String path) {
        return HttpRequest.newBuilder(URI.create("https://" + target + path)).timeout(Duration.ofSeconds(30));
    }

    static void say(String name, Object said) {
        System.out.println(name + " " + said);
        System.out.flush();
    }

    interface Call {
        String answer() throws Exception;
    }

    static String outcome(Call call) {
        try {
            return call.answer();
        } catch (Exception error) {
            return "failed " + error;
        }
    }

    static String get(HttpClient client, String path) throws Exception {
        HttpResponse<String> answer = client.send(page(path).build(), BodyHandlers.ofString());
        return answer.version() + " " + answer.statusCode() + " " + answer.body().strip();
    }

    static InputStream ticks(HttpClient client) throws Exception {
        InputStream stream = client.send(page("/ticks").build(), BodyHandlers.ofInputStream()).body();
        say("stream", new String(stream.readNBytes(4)).strip());
        return stream;
    }

    static void calls(HttpClient client) throws Exception {
        say("unary", outcome(() -> get(client, "/orders")));
        say("denied", outcome(() -> get(client, "/secret")));
        ticks(client).close();
        // Until the whole body is there: it never is.
        var late = client.sendAsync(page("/ticks").build(), BodyHandlers.ofString());
        say("deadline", outcome(() -> late.get(500, TimeUnit.MILLISECONDS).body()));
        late.cancel(true);
        // Its body has begun.
        CountDownLatch begun = new CountDownLatch(1);
        BodyHandler<Void> counts = BodyHandlers.ofByteArrayConsumer(bytes -> begun.countDown());
        var call = client.sendAsync(page("/ticks").build(), counts);
        begun.await();
        call.cancel(true);
        try {
            say("cancelled", call.join());
        } catch (CancellationException | CompletionException error) {
            // The one or the other, whichever thread is first.
            say("cancelled", error instanceof CancellationException ? error : error.getCause());
        }
        say("alive", outcome(() -> get(client, "/orders")));
    }

    static void watch(HttpClient client) throws Exception {
        InputStream stream = ticks(client);
        say("watching", "");
        say("cut", outcome(() -> "ended after " + stream.readAllBytes().length));
        say("again", settled(client));
    }

    static void restart(HttpClient client) throws Exception {
        say("before", outcome(() -> get(client, "/orders")));
        InputStream stream = ticks(client);
        say("open", "");
        say("stopped", outcome(() -> "ended after " + stream.readAllBytes().length));
        System.in.read();
        say("after", settled(client));
    }

    /** A call may still be given to the connection that is gone. */
    static String settled(HttpClient client) throws Exception {
        String said = "";
        for (int i = 0; i < 100; i++) {
            said = outcome(() -> get(client, "/orders"));
            if (!said.startsWith("failed") && !said.contains(" 503 ")) {
                return said;
            }
            Thread.sleep(200);
        }
        return said;
    }

    public static void main(String[] args) throws Exception {
        target = args[1];
        tls = tls(args[2], args[3], args[4]);
        var version = args[5].equals("2") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1;
        say("version", "JDK " + Runtime.version());
        switch (args[0]) {
            case "calls" -> calls(client(version));
            case "watch" -> watch(client(version));
            case "restart" -> restart(client(version));
            default -> throw new IllegalArgumentException(args[0]);
        }
        // Its threads would keep the process.
        System.exit(0);
    }
}
