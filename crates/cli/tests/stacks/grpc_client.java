// A client that is stock Java: grpc-java on Netty, with a certificate, its key and the authorities that it trusts. It
// says what becomes of each thing that it tries, a line each.

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.HexFormat;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

class GrpcClient {
    static final String HEALTH = "grpc.health.v1.Health/";
    static final String WHOAMI = "countersign.v1.Whoami/Whoami";

    /** Messages as they are. */
    static final MethodDescriptor.Marshaller<byte[]> BYTES = new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] message) {
            return new ByteArrayInputStream(message);
        }

        @Override
        public byte[] parse(InputStream stream) {
            try {
                return stream.readAllBytes();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    };

    static ManagedChannel channel(String[] args) throws Exception {
        var tls = GrpcSslContexts.forClient()
            .protocols("TLSv1.3")
            .keyManager(new File(args[2]), new File(args[3]))
            .trustManager(new File(args[4]))
            .build();
        return NettyChannelBuilder.forTarget(args[1]).sslContext(tls).build();
    }

    static void say(String name, Object said) {
        System.out.println(name + " " + said);
        System.out.flush();
    }

    /** A call whose messages, then status, come one by one. */
    static class Call extends ClientCall.Listener<byte[]> {
        final LinkedBlockingQueue<String> come = new LinkedBlockingQueue<>();
        final ClientCall<byte[], byte[]> call;

        Call(ManagedChannel channel, String name, boolean stream, long millis) {
            var type = stream ? MethodDescriptor.MethodType.SERVER_STREAMING : MethodDescriptor.MethodType.UNARY;
            var method = MethodDescriptor.newBuilder(BYTES, BYTES).setFullMethodName(name).setType(type).build();
            call = channel.newCall(method, CallOptions.DEFAULT.withDeadlineAfter(millis, TimeUnit.MILLISECONDS));
            call.start(this, new Metadata());
            call.sendMessage(new byte[0]);
            call.halfClose();
            call.request(100);
        }

        @Override
        public void onMessage(byte[] message) {
            come.add(HexFormat.of().formatHex(message));
        }

        @Override
        public void onClose(Status status, Metadata trailers) {
            come.add(status.getCode() + " " + status.getDescription() + " " + status.getCause());
        }

        String next() throws Exception {
            String said = come.poll(120, TimeUnit.SECONDS);
            return said == null ? "nothing came" : said;
        }
    }

    static String unary(ManagedChannel channel, String name) throws Exception {
        return new Call(channel, name, false, 30_000).next();
    }

    static void calls(ManagedChannel channel) throws Exception {
        say("unary", unary(channel, HEALTH + "Check"));
        say("whoami", unary(channel, WHOAMI));
        say("denied", unary(channel, "shop.Orders/Place"));
        Call late = new Call(channel, HEALTH + "Watch", true, 1000);
        say("stream", late.next());
        say("deadline", late.next());
        Call watch = new Call(channel, HEALTH + "Watch", true, 60_000);
        watch.next();
        watch.call.cancel("enough", null);
        say("cancelled", watch.next());
        say("alive", unary(channel, HEALTH + "Check"));
    }

    static void watch(ManagedChannel channel) throws Exception {
        Call watch = new Call(channel, HEALTH + "Watch", true, 120_000);
        say("stream", watch.next());
        say("watching", "");
        say("cut", watch.next());
        say("again", settled(channel, WHOAMI));
    }

    static void restart(ManagedChannel channel) throws Exception {
        say("before", unary(channel, HEALTH + "Check"));
        Call watch = new Call(channel, HEALTH + "Watch", true, 120_000);
        say("stream", watch.next());
        say("open", "");
        say("stopped", watch.next());
        System.in.read();
        say("after", settled(channel, HEALTH + "Check"));
    }

    /** UNAVAILABLE is what a client tries again. */
    static String settled(ManagedChannel channel, String name) throws Exception {
        String said = "";
        for (int i = 0; i < 100; i++) {
            said = unary(channel, name);
            if (!said.startsWith("UNAVAILABLE")) {
                return said;
            }
            Thread.sleep(200);
        }
        return said;
    }

    public static void main(String[] args) throws Exception {
        ManagedChannel channel = channel(args);
        say("version", io.grpc.internal.GrpcUtil.getGrpcBuildVersion());
        switch (args[0]) {
            case "calls" -> calls(channel);
            case "watch" -> watch(channel);
            case "restart" -> restart(channel);
            default -> throw new IllegalArgumentException(args[0]);
        }
        channel.shutdownNow();
        System.exit(0);
    }
}
