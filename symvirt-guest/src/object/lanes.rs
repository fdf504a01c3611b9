//! The transports that a real endpoint has lanes on, as UCX describes them to people.

use std::ffi::c_void;

use crate::export::rarely;

/// Names like `tcp/eth0` or `rc_mlx5/mlx5_0:1`, in the order of the lanes, each once.
///
/// # Safety
/// A real endpoint in use, inside the gate, on a thread that may use its worker.
pub unsafe fn of(real_endpoint: *mut c_void) -> Vec<String> {
    let (mut text, mut length) = (std::ptr::null_mut(), 0);
    // SAFETY: places for the text, which is ours after the stream is closed; the function of
    // ucp.h that prints an endpoint.
    let text = unsafe {
        let stream = libc::open_memstream(&raw mut text, &raw mut length);
        if stream.is_null() {
            return Vec::new();
        }
        rarely!(ucp_ep_print_info(real_endpoint => *mut c_void, stream => *mut libc::FILE));
        libc::fclose(stream);
        let copy = std::slice::from_raw_parts(text.cast::<u8>(), length).to_vec();
        libc::free(text.cast());
        copy
    };
    parse(&String::from_utf8_lossy(&text))
}

/// `#    lane[0]:  2:tcp/eth0.0 md[1]   -> md[1]/tcp/sysdev[255]/seg[8256] am am_bw#0` (ucp_ep.c,
/// `ucp_ep_config_print`, 1.13 to 1.18): index of the resource, transport and device, path.
fn parse(text: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| line.contains("lane[")) {
        let resource = line.splitn(3, ':').nth(2).unwrap_or_default();
        let name = resource.split_whitespace().next().unwrap_or_default();
        let name = match name.rsplit_once('.') {
            Some((name, path)) if path.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => name,
        };
        if name.contains('/') && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_read_as_ucx_1_13_prints_them() {
        let text = "#
# UCP endpoint
#
#               peer: vm:1234
#                 lane[0]: 10:posix/memory.0 md[3]           -> md[3]/posix/sysdev[255] am am_bw#0
#                 lane[1]: 12:cma/memory.0 md[5]    -> md[5]/cma/sysdev[255] rma_bw#0
#                 lane[2]:  1:tcp/eth0.100.0 md[1]  -> md[1]/tcp/sysdev[255] wireup
#                 lane[3]:  3:rc_mlx5/mlx5_0:1.0 md[6]  -> md[6]/ib/sysdev[0] rma_bw#1
#                 lane[4]:  3:rc_mlx5/mlx5_0:1.1 md[6]  -> md[6]/ib/sysdev[0] rma_bw#2
#
#                tag_send: 0..<egr/short>..7416..<egr/bcopy>..8192..<rndv>..(inf)
";
        assert_eq!(
            parse(text),
            [
                "posix/memory",
                "cma/memory",
                "tcp/eth0.100",
                "rc_mlx5/mlx5_0:1"
            ]
        );
    }
}
