//! CRC-32C as ext4 uses it: the raw register, without the final inversion.

/// The polynomial of Castagnoli, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;
const TABLES: [[u32; 256]; 8] = tables();

/// Continues a checksum over more bytes. The first one starts with `!0`.
pub(super) fn crc32c(mut crc: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in words {
        crc ^= u32::from_le_bytes([a, b, c, d]);
        let [w, x, y, z] = crc.to_le_bytes();
        crc = at(7, w) ^ at(6, x) ^ at(5, y) ^ at(4, z) ^ at(3, e) ^ at(2, f) ^ at(1, g) ^ at(0, h);
    }
    for &byte in rest {
        crc = at(0, crc.to_le_bytes()[0] ^ byte) ^ (crc >> 8);
    }
    crc
}

fn at(table: usize, byte: u8) -> u32 {
    TABLES[table][usize::from(byte)]
}

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 {
                crc >> 1
            } else {
                (crc >> 1) ^ POLYNOMIAL
            };
            bit += 1;
        }
        tables[0][i] = crc;
        i += 1;
    }
    let mut i = 0;
    while i < 256 {
        let mut table = 1;
        while table < 8 {
            let last = tables[table - 1][i];
            tables[table][i] = tables[0][(last & 0xff) as usize] ^ (last >> 8);
            table += 1;
        }
        i += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // RFC 3720, B.4: with the final inversion.
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(!crc32c(!0, &[0xff; 32]), 0x62a8_ab43);
        let split = crc32c(crc32c(!0, b"123"), b"456789");
        assert_eq!(!split, 0xe306_9283);
    }
}
