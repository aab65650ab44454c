# A platform for many users: its processes on Fargate in two zones or more, PostgreSQL with a standby,
# GPUs that come and go.

terraform {
  required_version = ">= 1.11"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.90, < 7"
    }
  }
  # State: terraform init -backend-config=bucket=… -backend-config=key=loraplex -backend-config=region=…
  # backend "s3" {
  #   encrypt      = true
  #   use_lockfile = true
  # }
}

module "network" {
  source       = "../../modules/network"
  name         = var.name
  zones        = var.zones
  nat_per_zone = true
}

module "data" {
  source      = "../../modules/data"
  name        = var.name
  vpc_id      = module.network.vpc_id
  subnet_ids  = module.network.private_subnet_ids
  protect     = var.protect
  ami_id      = var.valkey_ami_id
  valkey_type = var.valkey_type
}

module "dns" {
  source   = "../../modules/dns"
  zone_id  = var.zone_id
  domain   = var.domain
  balancer = module.control_plane.balancer
}

module "control_plane" {
  source                   = "../../modules/control_plane"
  name                     = var.name
  vpc_id                   = module.network.vpc_id
  public_subnet_ids        = module.network.public_subnet_ids
  private_subnet_ids       = module.network.private_subnet_ids
  client_security_group_id = module.data.client_security_group_id
  images                   = { for name in ["api", "scheduler", "gpu_worker"] : name => "${var.registry}/${name}:${var.release}" }
  parameter_arns           = module.data.parameter_arns
  kms_key_arn              = module.data.kms_key_arn
  bucket                   = module.data.bucket
  home                     = module.data.home
  certificate_arn          = module.dns.certificate_arn
  apis                     = var.apis
  allowed_cidrs            = var.allowed_cidrs
  protect                  = var.protect
  driver_policies          = { for name, each in module.pools : name => each.driver_policy }
  settings                 = local.settings
}

module "pools" {
  source   = "../../modules/gpu_pool"
  for_each = var.pools

  name                  = each.key
  installation          = var.name
  accelerator           = each.value.accelerator
  spot                  = each.value.spot
  warm                  = each.value.warm
  vpc_id                = module.network.vpc_id
  subnet_ids            = module.network.private_subnet_ids
  ami_id                = var.gpu_ami_id
  image                 = "${var.registry}/gpu_worker:${var.release}-cuda"
  environment_parameter = module.data.parameters["replicas"]
  models_uri            = "s3://${module.data.bucket}/models"
  adapter_buckets       = [module.data.bucket]
  kms_key_arn           = module.data.kms_key_arn
  redis_cidr            = module.network.cidr
}

# Replicas reach Valkey, and nothing else of the platform.
resource "aws_vpc_security_group_ingress_rule" "replicas" {
  for_each                     = module.pools
  security_group_id            = module.data.valkey_security_group_id
  description                  = "Replicas of the pool ${each.key}"
  referenced_security_group_id = each.value.security_group_id
  ip_protocol                  = "tcp"
  from_port                    = 6379
  to_port                      = 6379
}

module "observability" {
  source          = "../../modules/observability"
  name            = var.name
  balancer        = module.control_plane.balancer
  cluster         = module.control_plane.cluster
  services        = module.control_plane.services
  database_id     = module.data.database_id
  valkey_instance = module.data.valkey_instance
  kms_key_arn     = module.data.kms_key_arn
  emails          = var.emails
}

locals {
  settings = {
    LORAPLEX_DRIVER            = "ec2"
    LORAPLEX_EC2_INSTALLATION  = var.name
    LORAPLEX_EC2_POOLS         = jsonencode({ for name, each in module.pools : name => each.pool })
    LORAPLEX_EC2_MAX_INSTANCES = tostring(sum([for each in var.pools : each.most]))
    LORAPLEX_FLEET             = jsonencode({ for name, each in var.pools : name => each.most })
    LORAPLEX_PRICES            = jsonencode({ for name, each in var.pools : name => each.price_h })
    LORAPLEX_START_TIMEOUT_S   = "900" # an instance boots, and pulls its image
  }
}
