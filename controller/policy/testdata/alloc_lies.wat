;; An allocator that returns a place whose end is beyond the memory.
(module
  (memory (export "memory") 2)
  (func (export "konductor_policy_v1"))
  (func (export "konductor_alloc") (param i32) (result i32)
    i32.const 524287)
  (func $decide (export "konductor_decide") (param i32 i32) (result i64)
    ;; 2 bytes at 1024: {}
    i64.const 0x0000_0400_0000_0002)
  (data (i32.const 1024) "{}"))
