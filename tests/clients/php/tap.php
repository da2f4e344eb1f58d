<?php
// Runs cases and tells how they ended, in the lines that tests/clients/tap.py reads.

class Failure extends Exception {}

function same(mixed $got, mixed $expected, string $what = ''): void
{
    if ($got !== $expected) {
        throw new Failure(trim($what . ' got ' . brief($got) . ', expected ' . brief($expected)));
    }
}

function brief(mixed $value): string
{
    $text = json_encode($value, JSON_INVALID_UTF8_SUBSTITUTE | JSON_PARTIAL_OUTPUT_ON_ERROR);
    return strlen($text) > 200 ? substr($text, 0, 200) . '...' : $text;
}

/** Calls each case; its key is its name. */
function run_cases(array $cases): never
{
    $failed = 0;
    foreach ($cases as $name => $case) {
        try {
            $case();
            echo "ok $name\n";
        } catch (Throwable $error) {
            $failed++;
            echo "not ok $name: ", strtr($error->getMessage(), "\r\n", '  '), " (line {$error->getLine()})\n";
        }
    }
    echo '1..', count($cases), "\n";
    exit($failed > 0 ? 1 : 0);
}
