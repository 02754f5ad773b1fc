//! Classifies SQS's error codes, for calls and for batch entries. Detects the codes for expired credentials of all services.

/// The class of an error of SQS, by the reaction that it requires of the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorClass {
    /// The same request may succeed later: throttling, or an error of SQS itself.
    Transient,
    /// The queue can store no message: it does not exist, its key cannot be used, or the caller has no permission.
    QueueUnavailable,
    /// SQS rejects the message or the batch.
    Rejected,
}

/// Codes of errors that are transient even if SQS reports them as the sender's fault, without their namespace and without the
/// suffix `Exception`. Each code that contains `Throttl` is transient as well.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html>
const TRANSIENT: [&str; 12] = [
    "BandwidthLimitExceeded",
    "DependencyTimeout",
    "Internal",
    "KMSInternal",
    "LimitExceeded",
    "OverLimit",
    "ProvisionedThroughputExceeded",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "TooManyRequests",
];

/// An error concerns the queue, its key or the caller, not the message, if its code contains one of these texts.
const QUEUE_UNAVAILABLE: [&str; 14] = [
    "AccessDenied",
    "AuthFailure",
    "DisabledException",
    "ExpiredToken",
    "InvalidAddress",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "Kms",
    "KMS",
    "NonExistentQueue",
    "OptInRequired",
    "QueueDeletedRecently",
    "QueueDoesNotExist",
    "UnsupportedOperation",
];

/// The codes of SQS, S3 and Secrets Manager for credentials that AWS no longer accepts.
const EXPIRED_CREDENTIALS: [&str; 5] = [
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
];

/// Classifies the code of an error of SQS.
///
/// `is_sender_fault` is the member `SenderFault` of an entry. For a whole call, it is whether the status is 4xx, except 429.
#[must_use]
pub fn classify(code: &str, is_sender_fault: bool) -> ErrorClass {
    let name = code.rsplit_once('.').map_or(code, |(_, name)| name);
    let name = name.strip_suffix("Exception").unwrap_or(name);
    if code.contains("Throttl") || TRANSIENT.contains(&name) {
        ErrorClass::Transient
    } else if QUEUE_UNAVAILABLE.iter().any(|part| code.contains(part)) {
        ErrorClass::QueueUnavailable
    } else if is_sender_fault {
        ErrorClass::Rejected
    } else {
        ErrorClass::Transient
    }
}

/// Merges the two lists of a batch's response into one result for each entry, in order. The id of an entry is its index.
///
/// SQS responds with 200 even if it stored none of the entries. Only the entries in `successful` are stored. The result of an
/// entry that is in neither list is the error `missing`.
pub fn entry_results<'r, E: Clone>(
    entries: usize,
    missing: E,
    failed: impl Iterator<Item = (&'r str, E)>,
    successful: impl Iterator<Item = &'r str>,
) -> Vec<Result<(), E>> {
    let mut results = vec![Err(missing); entries];
    let listed = failed.map(|(id, error)| (id, Err(error))).chain(successful.map(|id| (id, Ok(()))));
    for (id, listed) in listed {
        if let Some(result) = id.parse().ok().and_then(|index: usize| results.get_mut(index)) {
            *result = listed;
        }
    }
    results
}

/// Whether the error code of an AWS service means that AWS no longer accepts the caller's credentials.
#[must_use]
pub fn is_expired_credentials(code: &str) -> bool {
    EXPIRED_CREDENTIALS.contains(&code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throttling_is_transient_for_any_fault() {
        for code in [
            "ThrottlingException",
            "RequestThrottled",
            "KMS.ThrottlingException",
            "KmsThrottled",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "AWS.SimpleQueueService.OverLimit",
            "RequestTimeoutException",
            "TooManyRequestsException",
            "KMS.KMSInternalException",
            "KMS.DependencyTimeoutException",
        ] {
            assert_eq!(classify(code, true), ErrorClass::Transient, "{code}");
            assert_eq!(classify(code, false), ErrorClass::Transient, "{code}");
        }
    }

    #[test]
    fn error_of_the_queue_does_not_reject_the_message() {
        for code in [
            "AccessDeniedException",
            "AWS.SimpleQueueService.NonExistentQueue",
            "QueueDoesNotExist",
            "KMS.DisabledException",
            "KmsInvalidState",
            "InvalidClientTokenId",
            "ExpiredToken",
        ] {
            assert_eq!(classify(code, true), ErrorClass::QueueUnavailable, "{code}");
        }
    }

    #[test]
    fn sender_fault_decides_about_other_codes() {
        for code in ["InvalidMessageContents", "InvalidParameterValue", "InternalError", "BrandNewError", ""] {
            assert_eq!(classify(code, true), ErrorClass::Rejected, "{code}");
            assert_eq!(classify(code, false), ErrorClass::Transient, "{code}");
        }
    }

    #[test]
    fn entry_in_neither_list_is_missing() {
        let results =
            entry_results(4, "missing", [("1", "a"), ("9", "b"), ("x", "c")].into_iter(), ["0", "7"].into_iter());

        assert_eq!(results, [Ok(()), Err("a"), Err("missing"), Err("missing")]);
    }

    #[test]
    fn expired_credentials_are_recognised() {
        assert!(["ExpiredToken", "InvalidClientTokenId"].into_iter().all(is_expired_credentials));
        assert!(!["AccessDenied", ""].into_iter().any(is_expired_credentials));
    }
}
