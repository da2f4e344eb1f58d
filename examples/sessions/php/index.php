<?php
// A shop of two pages, whose sessions are PHP's, in the cache; ini/sessions.ini says how.

// How often a session is looked for that a cookie names.
const ATTEMPTS = 5;
const PAUSE_MICROSECONDS = 50_000;

// A session that cannot be read or written is a warning to PHP, which goes on with an empty one. Here it is
// the end of the request, and the balancer may ask again.
set_error_handler(function (int $level, string $message) {
    throw new ErrorException($message, 0, $level);
});
set_exception_handler(function (Throwable $error) {
    error_log($error->getMessage());
    http_response_code(503);
});

// Starts the session. libmemcached takes an error for an item that is not there, so a node that cannot say
// looks like one that says no. A session of this application is never empty: one that is gets asked for again.
function begin(array $options = []): void
{
    for ($attempt = 1;; $attempt++) {
        session_start($options);
        if ($_SESSION !== [] || !isset($_COOKIE[session_name()]) || $attempt === ATTEMPTS) {
            return;
        }
        if (session_status() === PHP_SESSION_ACTIVE) {
            session_abort();
        }
        usleep(PAUSE_MICROSECONDS);
    }
}

// Ends the request with who is logged in, and what of theirs the session holds.
function page(): never
{
    $session = $_SESSION;
    // Before the answer: the one who reads it may rely on the session being written.
    if (session_status() === PHP_SESSION_ACTIVE) {
        session_write_close();
    }
    http_response_code(isset($session['user']) ? 200 : 401);
    header('Content-Type: application/json');
    exit(json_encode(['user' => $session['user'] ?? null, 'cart' => $session['cart'] ?? 0]));
}

switch ($_SERVER['REQUEST_METHOD'] . ' ' . ($_SERVER['PATH_INFO'] ?? '/')) {
    case 'GET /health':
        http_response_code(204);
        break;
    case 'GET /':
        // Gives the lock back at once; a page that changes nothing needs it no longer.
        begin(['read_and_close' => true]);
        page();
    case 'POST /login':
        session_start();
        session_regenerate_id(true);
        $_SESSION = ['user' => $_POST['user']];
        page();
    case 'POST /cart':
        begin();
        if (isset($_SESSION['user'])) {
            $_SESSION['cart'] = ($_SESSION['cart'] ?? 0) + 1;
        }
        page();
    case 'POST /logout':
        session_start();
        // Written over, which fails aloud. session_destroy does not say whether the cache has heard of it.
        $_SESSION = ['has left' => true];
        page();
    default:
        http_response_code(404);
}
