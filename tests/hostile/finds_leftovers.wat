;; A spy: it looks for what an earlier call, of whatever lease, has left in its memory, and leaves something itself.
(module
  (memory (export "memory") 8)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32)
    (local $at i32)
    (loop $next
      (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 524288))))
    i32.const 65536)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (memory.fill (i32.const 262144) (i32.const 0x5a) (i32.const 262144))
    (i32.store16 (i32.const 16) (i32.const 0x7d7b))
    i64.const 0x0000_0010_0000_0002))
