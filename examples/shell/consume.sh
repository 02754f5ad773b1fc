#!/usr/bin/env bash
# Works off what is on a queue, with nothing but curl and jq, and ends: ./consume.sh QUEUE_URL FILE_OF_KEYS
# A message whose work fails is not deleted. It comes back after the visibility timeout; the exit status is 1.
set -euo pipefail
queue_url=$1
done_file=$2
body=$(mktemp)
trap 'rm -f "$body"' EXIT

# The place for your own code: $body is the file with what Meta sent. One change can have many messages, receipts and
# errors: read all three lists, whatever the attribute `kind`, which names only the first that is not empty.
work() {
    if ! jq empty "$body" 2>/dev/null; then
        jq -nc --arg event_id "$event_id" --arg bytes "$(wc -c <"$body")" '{$event_id, bytes: ($bytes | tonumber)}'
        return
    fi
    jq -c --arg event_id "$event_id" '([(.entry[0].changes[0])?][0] // {}) as {$field, $value}
        | [$value | objects | .messages, .statuses, .errors | arrays[]] as $items
        | ((.object? // "whatsapp_business_account") != "whatsapp_business_account") as $other_product
        | if $field == "messages" and ($other_product or $items == []) then error("neither a message nor a receipt nor an error") else . end
        | {$event_id, $field, items: ($items | length)}' "$body"
}

main() {
    # One worker at a time for each file: a copy is never in work beside the other.
    exec 9>>"$done_file"
    flock 9
    failed=0
    while receive; do
        event_id=$(attribute event_id)
        if [ -z "$event_id" ]; then
            # Different messages without an id would be one.
            echo "not handled: no event_id" >&2
            failed=1
            continue
        fi
        if [ "$(attribute unrouted_reason)" = queue-unavailable ]; then
            echo "left on the catch-all queue, until the operator moves it: $event_id" >&2
            continue
        fi
        # On the catch-all queue, several queues can have one message each of the same change.
        key=$event_id$(attribute diverted_from)
        if ! grep -qx "$key" "$done_file"; then
            if ! { fetch && work; }; then
                echo "not handled: $event_id" >&2
                failed=1
                continue
            fi
            echo "$key" >&9
        fi
        sqs DeleteMessage --arg handle "$(jq -r .ReceiptHandle <<<"$message")" \
            '{QueueUrl: $url, ReceiptHandle: $handle}' >/dev/null
    done
    exit "$failed"
}

receive() {
    # Bash does not end by itself where a function is a condition.
    message=$(sqs ReceiveMessage \
        '{QueueUrl: $url, MaxNumberOfMessages: 1, WaitTimeSeconds: 1, MessageAttributeNames: ["All"]}' |
        jq -c '.Messages[0] // empty') || exit 1
    [ -n "$message" ]
}

# In the order of the contract: a claim check, then base64.
fetch() {
    jq -j .Body <<<"$message" >"$body" || return 1
    if [ -n "$(attribute ExtendedPayloadSize)" ]; then
        signed s3 --output "$body" "$(endpoint s3)/$(jq -r '.[1] | "\(.s3BucketName)/\(.s3Key)"' "$body")" || return 1
    fi
    if [ "$(attribute encoding)" = base64 ]; then
        base64 -d "$body" >"$body.decoded" && mv "$body.decoded" "$body"
    fi
}

attribute() {
    jq -r --arg name "$1" '.MessageAttributes[$name].StringValue // ""' <<<"$message"
}

# Calls SQS with what a jq program, the last argument, makes of the queue's URL as $url and of the other arguments.
sqs() {
    signed sqs --header "x-amz-target: AmazonSQS.$1" --header 'content-type: application/x-amz-json-1.0' \
        --data "$(jq -n --arg url "$queue_url" "${@:2}")" "$(endpoint sqs)"
}

signed() {
    curl --silent --show-error --fail --aws-sigv4 "aws:amz:$AWS_REGION:$1" \
        --user "$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY" \
        --header "${AWS_SESSION_TOKEN:+x-amz-security-token: $AWS_SESSION_TOKEN}" "${@:2}"
}

endpoint() {
    echo "${AWS_ENDPOINT_URL:-https://$1.$AWS_REGION.amazonaws.com}"
}

main
