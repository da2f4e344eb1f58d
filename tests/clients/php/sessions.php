<?php
// An application that keeps its sessions in memcached, as `php -S` serves it; see tests/clients/test_php.py.
//
// A request names what it does by its path, and the session by its cookie. `set[OPTION]=VALUE` in the query
// changes an option for it. It answers with the session's variables and when it had the session to itself.

foreach ($_GET['set'] ?? [] as $option => $value) {
    ini_set($option, $value);
}

header('Content-Type: application/json');
if (!@session_start()) {
    http_response_code(503);
    echo json_encode(['error' => error_get_last()['message'] ?? 'no session']);
    exit;
}
$entered = microtime(true);
switch (parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH)) {
    case '/read':
        break;
    case '/count':
        $count = $_SESSION['count'] ?? 0;
        usleep(1000 * (int) ($_GET['milliseconds'] ?? 0));
        $_SESSION['count'] = $count + 1;
        break;
    case '/keep':
        $_SESSION['kept'] = file_get_contents('php://input');
        break;
    case '/rename':
        session_regenerate_id(true);
        break;
    case '/end':
        session_destroy();
        break;
    case '/die':
        // As when the kernel runs out of memory: nothing gives the lock back.
        posix_kill(getmypid(), SIGKILL);
}
$left = microtime(true);
$variables = $_SESSION;
if (session_status() === PHP_SESSION_ACTIVE) {
    session_write_close();
}
echo json_encode(['variables' => $variables, 'entered' => $entered, 'left' => $left]);
