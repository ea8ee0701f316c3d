import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Path;
import java.util.List;

/** Sends a body with its length and in chunks, twice each: java Ask.java URL FILE. */
class Ask {
    public static void main(String[] arguments) throws Exception {
        HttpClient client = HttpClient.newHttpClient(); // offers h2c
        BodyPublisher sized = BodyPublishers.ofFile(Path.of(arguments[1]));
        BodyPublisher chunked = BodyPublishers.fromPublisher(sized);
        for (BodyPublisher body : List.of(sized, chunked, sized, chunked)) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0])).POST(body).build();
            System.out.println(client.send(request, BodyHandlers.ofString()).body());
        }
    }
}
