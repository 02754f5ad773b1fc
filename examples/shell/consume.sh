#!/usr/bin/env bash
# Works off what is on a queue, with nothing but curl and jq, and ends: ./consume.sh QUEUE_URL FILE_OF_EVENT_IDS
# A message whose work fails ends it too, and comes back after the visibility timeout.
set -euo pipefail
queue_url=$1
done_file=$2
body=$(mktemp)
trap 'rm -f "$body"' EXIT

# The place for your own code: $body is the file with what Meta sent.
work() {
    case $(attribute unrouted_reason)$(attribute encoding) in
    "" | no-route | no-field | queue-unavailable | not-a-notification)
        jq -c --arg event_id "$event_id" '{$event_id, field: ((.entry[0].changes[0].field)? // null)}' "$body"
        ;;
    *) jq -nc --arg event_id "$event_id" --arg bytes "$(wc -c <"$body")" '{$event_id, bytes: ($bytes | tonumber)}' ;;
    esac
}

main() {
    touch "$done_file"
    while receive; do
        event_id=$(attribute event_id)
        if ! grep -qx "$event_id" "$done_file"; then
            fetch
            work
            echo "$event_id" >>"$done_file"
        fi
        sqs DeleteMessage --arg handle "$(jq -r .ReceiptHandle <<<"$message")" \
            '{QueueUrl: $url, ReceiptHandle: $handle}' >/dev/null
    done
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
    jq -j .Body <<<"$message" >"$body"
    if [ -n "$(attribute ExtendedPayloadSize)" ]; then
        signed s3 --output "$body" "$(endpoint s3)/$(jq -r '.[1] | "\(.s3BucketName)/\(.s3Key)"' "$body")"
    fi
    if [ "$(attribute encoding)" = base64 ]; then
        base64 -d "$body" >"$body.decoded"
        mv "$body.decoded" "$body"
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
