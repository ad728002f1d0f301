// The MLP block as one operator of OpenVINO: the kernels of this folder's parent, with threads from OpenVINO's own pool.
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/op.hpp>
#include <vector>

#include "../work.h"
#include "block.h"

namespace lazy {
namespace LAZY_ISA {
void kernel(const Problem&, int threads, Parallel);
void quantised_mlp(const QuantisedProblem&, int threads, Parallel);
void panels(const Problem&, const float* down_scale, int threads, Parallel);
void finish(const Finish&, Dtype own, const void* y, int64_t begin, int64_t end, int64_t width);
void convert(Dtype from_type, const void* from, Dtype to_type, void* to, int64_t n);
}  // namespace LAZY_ISA

namespace {

// Whoever waits here takes no other task of the arena, whose scratch memory would be this one's.
void run_on_pool(int64_t workers, void (*body)(void*), void* context) {
  tbb::this_task_arena::isolate([&] {
    tbb::parallel_for(int64_t{0}, workers, [&](int64_t) { body(context); }, tbb::static_partitioner());
  });
}

// A thread is worth waking for about 64 KiB of the first layer's bytes.
int useful_threads(int64_t tokens, int64_t neurons, int64_t padded_in) {
  const double bytes = static_cast<double>(tokens) * static_cast<double>(neurons * padded_in);
  const int64_t most = 1 + static_cast<int64_t>(std::min(bytes / 65536, 1e6));
  return static_cast<int>(std::min<int64_t>(tbb::this_task_arena::max_concurrency(), most));
}

constexpr int64_t kBytesBind = 8;  // tokens up to which a second plane of x costs little: the panels come from memory

Dtype dtype_of(const ov::element::Type& type) {
  if (type == ov::element::bf16) return Dtype::bf16;
  if (type == ov::element::f16) return Dtype::f16;
  if (type == ov::element::f32) return Dtype::f32;
  refuse("A sparse MLP block takes float32, bfloat16 and float16, got ", type, "; export the model again.");
}

void convert_together(Dtype from_type, const void* from, Dtype to_type, void* to, int64_t n) {
  constexpr int64_t kPiece = 16384;
  const int64_t from_item = from_type == Dtype::f32 ? 4 : 2, to_item = to_type == Dtype::f32 ? 4 : 2;
  const auto piece = [&](int64_t k) {
    const int64_t begin = k * kPiece;
    LAZY_ISA::convert(from_type, static_cast<const char*>(from) + begin * from_item, to_type,
                      static_cast<char*>(to) + begin * to_item, std::min(kPiece, n - begin));
  };
  const int64_t pieces = (n + kPiece - 1) / kPiece;
  if (pieces <= 2) for (int64_t k = 0; k < pieces; ++k) piece(k);
  else tbb::this_task_arena::isolate([&] { tbb::parallel_for(int64_t{0}, pieces, piece); });
}

void finish_together(const Finish& f, Dtype own, const void* y, int64_t tokens, int64_t width) {
  constexpr int64_t kRows = 16;
  tbb::this_task_arena::isolate([&] {
    tbb::parallel_for(int64_t{0}, (tokens + kRows - 1) / kRows, [&](int64_t k) {
      LAZY_ISA::finish(f, own, y, k * kRows, std::min(tokens, (k + 1) * kRows), width);
    });
  });
}

// The bytes of a block where kernels read them best. A file that is mapped into memory begins its constants anywhere, and
// a load that crosses two cache lines takes twice as long.
class AlignedBytes {
 public:
  std::shared_ptr<const uint8_t> of(const uint8_t* bytes, size_t size) {
    if (reinterpret_cast<uintptr_t>(bytes) % 64 == 0) return {bytes, [](const uint8_t*) {}};
    const std::lock_guard<std::mutex> lock(mutex_);
    if (from_ != bytes) {
      constexpr size_t kPage = size_t{1} << 21;
      const size_t room = (size + kPage - 1) / kPage * kPage;
      auto* copy = static_cast<uint8_t*>(std::aligned_alloc(kPage, room));
      if (!copy) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
      madvise(copy, room, MADV_HUGEPAGE);
#endif
      std::memcpy(copy, bytes, size);
      copy_ = std::shared_ptr<const uint8_t>(copy, [](const uint8_t* p) { std::free(const_cast<uint8_t*>(p)); });
      from_ = bytes;
    }
    return copy_;
  }

 private:
  std::mutex mutex_;
  const uint8_t* from_ = nullptr;
  std::shared_ptr<const uint8_t> copy_;
};

// Where bytes lie that were found as they were exported. OpenVINO clones a node for the shapes of each inference, and a
// clone has no need to read them again.
using Checked = std::atomic<const void*>;

class SparseMLP : public ov::op::Op {
 public:
  OPENVINO_OP("SparseMLP", "lazyneuron");

  SparseMLP() = default;
  SparseMLP(const ov::OutputVector& inputs, const Shape& shape, const std::shared_ptr<Checked>& checked)
      : Op(inputs), s_(shape), checked_(checked) {
    constructor_validate_and_infer_types();
  }

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    visitor.on_attribute("format", s_.format);
    visitor.on_attribute("weights", s_.weights);
    visitor.on_attribute("activation", s_.activation);
    visitor.on_attribute("d_in", s_.d_in);
    visitor.on_attribute("d_hidden", s_.d_hidden);
    visitor.on_attribute("d_out", s_.d_out);
    visitor.on_attribute("gated", s_.gated);
    visitor.on_attribute("rectify_up", s_.rectify_up);
    visitor.on_attribute("planes", s_.planes);
    visitor.on_attribute("adds_input", s_.adds_input);
    visitor.on_attribute("normalises", s_.normalises);
    visitor.on_attribute("checksum", s_.checksum);
    return true;
  }

  void validate_and_infer_types() override {
    if (get_input_size() != 2) refuse("A sparse MLP block takes its input and its weights, got ", get_input_size(), " inputs.");
    s_.check();
    dtype_of(get_input_element_type(0));
    if (get_input_element_type(1) != ov::element::u8)
      refuse("The weights of a sparse MLP block are bytes, got ", get_input_element_type(1), "; export the model again.");
    if (const auto bytes = ov::as_type_ptr<ov::op::v0::Constant>(input_value(1).get_node_shared_ptr())) {
      const auto* data = bytes->get_data_ptr<uint8_t>();
      if (checked_->load() != data) {
        check_bytes(s_, data, static_cast<int64_t>(bytes->get_byte_size()));
        checked_->store(data);
      }
    }
    ov::PartialShape shape = get_input_partial_shape(0);
    if (shape.rank().is_static()) {
      const auto axes = shape.rank().get_length();
      if (axes < 1 || !shape[axes - 1].compatible(s_.d_in))
        refuse("The input of a sparse MLP block has ", s_.d_in, " features along its last axis, got the shape ", shape,
               "; export the model again.");
      shape[axes - 1] = s_.d_out;
    }
    set_output_type(0, get_input_element_type(0), shape);
  }

  std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
    return std::make_shared<SparseMLP>(inputs, s_, checked_);
  }

  bool has_evaluate() const override { return true; }

  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    const ov::Tensor& x = inputs[0];
    ov::Shape shape = x.get_shape();
    const int64_t tokens = static_cast<int64_t>(x.get_size()) / s_.d_in;
    shape.back() = static_cast<size_t>(s_.d_out);
    outputs[0].set_shape(shape);
    if (tokens == 0) return true;
    const size_t size = inputs[1].get_byte_size();
    const std::shared_ptr<const uint8_t> bytes = bytes_.of(inputs[1].data<uint8_t>(), size);
    const Block block(s_, bytes.get(), static_cast<int64_t>(size));
    const Dtype given = dtype_of(x.get_element_type()), own = s_.dtype();
    const int64_t n_in = tokens * s_.d_in, n_out = tokens * s_.d_out;
    thread_local LAZY_ISA::Scratch in, out;  // of the calling thread, which takes no other task until this one is done
    const void* from = x.data();
    void* to = outputs[0].data();
    if (given != own) {
      const size_t item = own == Dtype::f32 ? 4 : 2;
      from = in.at_least(static_cast<size_t>(n_in) * item);
      to = out.at_least(static_cast<size_t>(n_out) * item);
      convert_together(given, x.data(), own, const_cast<void*>(from), n_in);
    }
    if (!s_.adds_input) {
      run(block, tokens, from, to, nullptr);
      if (given != own) convert_together(own, to, given, outputs[0].data(), n_out);
      return true;
    }
    const Finish left = block.finish(x.data(), outputs[0].data(), given);
    run(block, tokens, from, to, &left);
    return true;
  }

 private:
  void run(const Block& block, int64_t tokens, const void* x, void* y, const Finish* finish) const {
    const int threads = useful_threads(tokens, s_.padded_hidden(), s_.padded_in());
    int64_t counts[2] = {0, 0};
    if (s_.quantised() && s_.gated) {
      QuantisedProblem p = block.quantised(tokens);
      p.x = x;
      p.y = y;
      p.counts = counts;
      LAZY_ISA::quantised_mlp(p, threads, run_on_pool);
      if (finish) finish_together(*finish, s_.dtype(), y, tokens, s_.d_out);
      return;
    }
    const int planes = s_.planes ? static_cast<int>(s_.planes) : tokens <= kBytesBind ? 2 : 1;
    Problem p = block.problem(tokens, s_.panels() ? 1 : planes);
    p.x = x;
    p.y = y;
    p.finish = finish;
    p.counts = counts;
    if (s_.panels()) LAZY_ISA::panels(p, block.scales_of_down(), threads, run_on_pool);
    else LAZY_ISA::kernel(p, threads, run_on_pool);
  }

  Shape s_;
  std::shared_ptr<Checked> checked_ = std::make_shared<Checked>(nullptr);
  mutable AlignedBytes bytes_;
};

}  // namespace
}  // namespace lazy

OPENVINO_CREATE_EXTENSIONS({std::make_shared<ov::OpExtension<lazy::SparseMLP>>()});
