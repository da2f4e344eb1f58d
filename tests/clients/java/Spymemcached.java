import java.net.SocketAddress;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Random;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import net.spy.memcached.AddrUtil;
import net.spy.memcached.CASResponse;
import net.spy.memcached.CASValue;
import net.spy.memcached.ConnectionFactoryBuilder;
import net.spy.memcached.ConnectionFactoryBuilder.Locator;
import net.spy.memcached.ConnectionFactoryBuilder.Protocol;
import net.spy.memcached.DefaultHashAlgorithm;
import net.spy.memcached.FailureMode;
import net.spy.memcached.MemcachedClient;
import net.spy.memcached.transcoders.SerializingTranscoder;

/**
 * spymemcached in text and in binary, on one server and on three by ketama.
 *
 * <p>Usage: {@code java -cp spymemcached.jar Spymemcached.java HOST:PORT...}
 */
public final class Spymemcached {
    private static final long LIMIT_MS = 20_000;
    private static final int LIFETIME_S = 100;
    private static final int THIRTY_DAYS_S = 60 * 60 * 24 * 30;
    /** A server may count time in whole seconds. */
    private static final long CLOCK_SLACK_MS = 1_200;

    private static int cases;
    private static int failed;

    private interface Case {
        void run(MemcachedClient client) throws Exception;
    }

    public static void main(String[] servers) throws Exception {
        System.setProperty("net.spy.log.LoggerImpl", "net.spy.memcached.compat.log.SunLogger");
        java.util.logging.LogManager.getLogManager().reset();
        new Spymemcached("text", Protocol.TEXT, servers[0]).run();
        new Spymemcached("binary", Protocol.BINARY, servers[0]).run();
        new Spymemcached("text by ketama", Protocol.TEXT, servers).run();
        new Spymemcached("binary by ketama", Protocol.BINARY, servers).run();
        System.out.println("1.." + cases);
        System.exit(failed > 0 ? 1 : 0);
    }

    private final String kind;
    private final Protocol protocol;
    private final String[] servers;
    private final MemcachedClient client;

    private Spymemcached(String kind, Protocol protocol, String... servers) throws Exception {
        this.kind = kind;
        this.protocol = protocol;
        this.servers = servers;
        SerializingTranscoder transcoder = new SerializingTranscoder(Integer.MAX_VALUE);
        transcoder.setCompressionThreshold(Integer.MAX_VALUE);
        ConnectionFactoryBuilder connections = new ConnectionFactoryBuilder()
                .setProtocol(protocol)
                .setFailureMode(FailureMode.Retry)
                .setOpTimeout(LIMIT_MS)
                .setTranscoder(transcoder);
        if (servers.length > 1) {
            connections.setLocatorType(Locator.CONSISTENT).setHashAlg(DefaultHashAlgorithm.KETAMA_HASH);
        }
        client = new MemcachedClient(connections.build(), AddrUtil.getAddresses(Arrays.asList(servers)));
    }

    private void run() {
        test("values of every type are got", this::valuesOfEveryType);
        test("values of every size are got", this::valuesOfEverySize);
        test("a value too large is refused and the next request served", this::tooLarge);
        test("add and replace", this::addAndReplace);
        test("append and prepend", this::appendAndPrepend);
        test("numbers go up and down", this::numbers);
        test("numbers begin where the client says", this::numbersWithInitial);
        test("cas is compared", this::cas);
        test("delete and touch", this::deleteAndTouch);
        test("items expire", this::expiry);
        test("many keys at once", this::bulk);
        test("a thousand requests on their way", this::pipeline);
        test("keys of 250 bytes", this::longKeys);
        test("statistics and versions are told", this::statistics);
        client.shutdown(LIMIT_MS, TimeUnit.MILLISECONDS);
    }

    /** Runs one case and tells how it ended, in a line that tests/clients/tap.py reads. */
    private void test(String name, Case run) {
        cases++;
        try {
            same(client.flush().get(), true, "flush");
            run.run(client);
            System.out.println("ok " + kind + ", " + name);
        } catch (Throwable error) {
            failed++;
            String why = error.toString().replaceAll("\\s+", " ");
            System.out.println("not ok " + kind + ", " + name + ": " + why + " at " + line(error));
        }
    }

    private static int line(Throwable error) {
        for (StackTraceElement place : error.getStackTrace()) {
            boolean isHelper = place.getMethodName().equals("same");
            if (place.getClassName().equals(Spymemcached.class.getName()) && !isHelper) {
                return place.getLineNumber();
            }
        }
        return 0;
    }

    private static void same(Object got, Object expected, String what) {
        if (!Objects.deepEquals(got, expected)) {
            throw new AssertionError(what + " is " + got + ", expected " + expected);
        }
    }

    private void valuesOfEveryType(MemcachedClient c) throws Exception {
        byte[] everyByte = new byte[256];
        for (int n = 0; n < 256; n++) {
            everyByte[n] = (byte) n;
        }
        Object[] values = {"text", "Grüße", "", "line\r\nEND\r\n", everyByte, 7, -7, 1L << 40, 1.5, true, 'x',
            new ArrayList<>(List.of("a", 1))};
        for (Object value : values) {
            same(c.set("k", LIFETIME_S, value).get(), true, "set");
            same(c.get("k"), value, "value");
        }
        same(c.get("nobody"), null, "nobody");
    }

    private void valuesOfEverySize(MemcachedClient c) throws Exception {
        for (int size : new int[] {0, 1, 2_048, 16_384, 100_000, 1_000_000}) {
            byte[] value = new byte[size];
            new Random(size).nextBytes(value);
            same(c.set("k", LIFETIME_S, value).get(), true, "set");
            same(c.get("k"), value, "value of " + size);
        }
    }

    private void tooLarge(MemcachedClient c) throws Exception {
        boolean isStored;
        try {
            isStored = c.set("k", LIFETIME_S, new byte[1 << 20]).get();
        } catch (java.util.concurrent.ExecutionException refused) {
            isStored = false;
        }
        same(isStored, false, "set");
        same(c.set("k", LIFETIME_S, "a").get(), true, "next set");
        same(c.get("k"), "a", "value");
    }

    private void addAndReplace(MemcachedClient c) throws Exception {
        same(c.replace("k", LIFETIME_S, "a").get(), false, "replace of nothing");
        same(c.add("k", LIFETIME_S, "b").get(), true, "add");
        same(c.add("k", LIFETIME_S, "c").get(), false, "add again");
        same(c.replace("k", LIFETIME_S, "d").get(), true, "replace");
        same(c.get("k"), "d", "value");
    }

    private void appendAndPrepend(MemcachedClient c) throws Exception {
        same(c.append("k", "a").get(), false, "append to nothing");
        same(c.prepend("k", "a").get(), false, "prepend to nothing");
        c.set("k", LIFETIME_S, "b").get();
        same(c.append("k", "c").get(), true, "append");
        same(c.prepend("k", "a").get(), true, "prepend");
        same(c.get("k"), "abc", "value");
        long cas = c.gets("k").getCas();
        same(c.append(cas, "k", "d").get(), true, "append with a cas");
        same(c.get("k"), "abcd", "value");
    }

    private void numbers(MemcachedClient c) throws Exception {
        c.set("n", LIFETIME_S, "10").get();
        same(c.incr("n", 1), 11L, "incr");
        same(c.incr("n", 31), 42L, "incr");
        same(c.decr("n", 2), 40L, "decr");
        same(c.decr("n", 100), 0L, "decr");
        same(c.incr("nobody", 1), -1L, "incr of nothing");
        same(c.asyncIncr("n", 5).get(), 5L, "incr, asked and not waited for");
    }

    private void numbersWithInitial(MemcachedClient c) throws Exception {
        same(c.incr("n", 5, 100L, LIFETIME_S), 100L, "absent");
        same(c.incr("n", 5, 100L, LIFETIME_S), 105L, "present");
        same(c.decr("m", 1, 7L, LIFETIME_S), 7L, "absent");
    }

    private void cas(MemcachedClient c) throws Exception {
        c.set("k", LIFETIME_S, "a").get();
        CASValue<Object> read = c.gets("k");
        same(read.getValue(), "a", "value");
        same(c.cas("k", read.getCas(), LIFETIME_S, "b"), CASResponse.OK, "cas");
        same(c.cas("k", read.getCas(), LIFETIME_S, "c"), CASResponse.EXISTS, "cas again");
        same(c.get("k"), "b", "value");
        same(c.cas("nobody", read.getCas(), LIFETIME_S, "c"), CASResponse.NOT_FOUND, "cas of nothing");
    }

    private void deleteAndTouch(MemcachedClient c) throws Exception {
        c.set("k", LIFETIME_S, "a").get();
        same(c.touch("k", LIFETIME_S).get(), true, "touch");
        same(c.touch("nobody", LIFETIME_S).get(), false, "touch of nothing");
        same(c.delete("k").get(), true, "delete");
        same(c.delete("k").get(), false, "delete again");
    }

    private void expiry(MemcachedClient c) throws Exception {
        c.set("short", 1, "a").get();
        c.set("touched", 1, "a").get();
        c.touch("touched", LIFETIME_S).get();
        if (protocol == Protocol.BINARY) { // It has no words for that in text.
            c.set("touched_by_a_get", 1, "a").get();
            same(c.getAndTouch("touched_by_a_get", LIFETIME_S).getValue(), "a", "value");
            same(c.getAndTouch("nobody", LIFETIME_S), null, "nobody");
        }
        c.set("past", THIRTY_DAYS_S + 1, "a").get();
        c.set("date", (int) (System.currentTimeMillis() / 1_000) + LIFETIME_S, "a").get();
        same(c.get("past"), null, "a date that is over");
        Thread.sleep(1_000 + CLOCK_SLACK_MS);
        same(c.get("short"), null, "one second is over");
        same(c.get("touched"), "a", "touched");
        same(c.get("touched_by_a_get"), protocol == Protocol.BINARY ? "a" : null, "touched_by_a_get");
        same(c.get("date"), "a", "a date to come");
    }

    private void bulk(MemcachedClient c) throws Exception {
        Map<String, Object> items = new HashMap<>();
        List<Future<Boolean>> sets = new ArrayList<>();
        for (int n = 0; n < 300; n++) {
            items.put("key_" + n, "value " + n);
            sets.add(c.set("key_" + n, LIFETIME_S, "value " + n));
        }
        for (Future<Boolean> set : sets) {
            same(set.get(), true, "set");
        }
        HashSet<String> keys = new HashSet<>(items.keySet());
        keys.add("nobody");
        same(c.getBulk(keys), items, "values");
    }

    private void pipeline(MemcachedClient c) throws Exception {
        List<Future<Object>> gets = new ArrayList<>();
        for (int n = 0; n < 1_000; n++) {
            c.set("k" + n, LIFETIME_S, n);
            gets.add(c.asyncGet("k" + n));
        }
        for (int n = 0; n < 1_000; n++) {
            same(gets.get(n).get(), n, "value " + n);
        }
    }

    private void longKeys(MemcachedClient c) throws Exception {
        String key = "k".repeat(250);
        same(c.set(key, LIFETIME_S, "a").get(), true, "set");
        same(c.get(key), "a", "value");
    }

    private void statistics(MemcachedClient c) {
        Map<SocketAddress, Map<String, String>> stats = c.getStats();
        same(stats.size(), servers.length, "servers that answered");
        for (Map<String, String> ofOne : stats.values()) {
            same(ofOne.keySet().containsAll(List.of("curr_items", "evictions", "limit_maxbytes")), true, "lines");
        }
        for (Map<String, String> settings : c.getStats("settings").values()) {
            same(settings.containsKey("maxbytes"), true, "settings");
        }
        for (String version : c.getVersions().values()) {
            same(version.matches("\\d+\\.\\d+\\.\\d+"), true, "version " + version);
        }
    }
}
