//! The content encoding [`aws-chunked`]: chunks with hexadecimal sizes and optional signatures, and a trailer with the checksum.
//!
//! [`aws-chunked`]: https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html

use bytes::Bytes;

/// Joins the content of the chunks. Returns `None` if they are malformed. Ignores the trailer.
pub(super) fn decode(mut encoded: &[u8]) -> Option<Bytes> {
    let mut decoded = Vec::with_capacity(encoded.len());
    loop {
        let line_end = encoded.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&encoded[..line_end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
        encoded = &encoded[line_end + 2..];
        if size == 0 {
            return Some(decoded.into());
        }
        let (chunk, rest) = encoded.split_at_checked(size)?;
        decoded.extend_from_slice(chunk);
        encoded = rest.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn chunks_are_joined_without_signatures_and_trailer() {
        let encoded = b"3;chunk-signature=00\r\nabc\r\nA\r\n0123456789\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        assert_eq!(decode(encoded).as_deref(), Some(b"abc0123456789".as_slice()));
    }

    #[test]
    fn chunk_shorter_than_declared_is_malformed() {
        assert_eq!(decode(b"4\r\nabc\r\n0\r\n\r\n"), None);
        assert_eq!(decode(b"3\r\nabc"), None);
        assert_eq!(decode(b"x\r\nabc\r\n"), None);
    }
}
