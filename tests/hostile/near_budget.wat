;; An honest policy whose cost grows too fast with its input: about many requests it needs nearly all of its fuel.
(module
  (memory (export "memory") 8)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32) i32.const 4096)
  (func $decide (export "konductor_decide") (param $ptr i32) (param $len i32) (result i64)
    (local $left i32)
    (if (i32.gt_u (local.get $len) (i32.const 40000))
      (then
        (local.set $left (i32.const 5000000))
        (loop $again
          (local.set $left (i32.sub (local.get $left) (i32.const 1)))
          (br_if $again (local.get $left)))))
    i64.const 0x0000_0400_0000_0002)
  (data (i32.const 1024) "{}"))
