//! `aws-chunked`: chunks with hexadecimal sizes, perhaps signed, and a trailer with the checksum.

use bytes::Bytes;

/// The bytes inside the chunks; none if they are malformed. The trailer is not looked at.
pub(super) fn decode(mut framed: &[u8]) -> Option<Bytes> {
    let mut decoded = Vec::with_capacity(framed.len());
    loop {
        let line_end = framed.windows(2).position(|pair| pair == b"\r\n")?;
        let line = std::str::from_utf8(&framed[..line_end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?, 16).ok()?;
        framed = &framed[line_end + 2..];
        if size == 0 {
            return Some(decoded.into());
        }
        let (chunk, rest) = framed.split_at_checked(size)?;
        decoded.extend_from_slice(chunk);
        framed = rest.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn chunks_are_joined_and_signatures_and_trailer_left_out() {
        let framed = b"3;chunk-signature=00\r\nabc\r\nA\r\n0123456789\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        assert_eq!(decode(framed).as_deref(), Some(b"abc0123456789".as_slice()));
    }

    #[test]
    fn a_chunk_shorter_than_it_says_is_malformed() {
        assert_eq!(decode(b"4\r\nabc\r\n0\r\n\r\n"), None);
        assert_eq!(decode(b"3\r\nabc"), None);
        assert_eq!(decode(b"x\r\nabc\r\n"), None);
    }
}
